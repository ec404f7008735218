"""Makes the pictures of the documents from the bundled recording, in a real browser.

A picture is a function in `PICTURES`: it gets a browser, a scratch folder and the file to make.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "scripts" / "env")]

import environments  # noqa: E402
from browser import launched  # noqa: E402
from perfetto_ui import Ui, opened  # noqa: E402
from playwright.sync_api import Browser  # noqa: E402

from profilemate.parse.pipeline import parse_session  # noqa: E402

RECORDING = ROOT / "tests" / "data" / "vllm_cpu_server" / "recording.sqlite"
TARGET = ROOT / "docs" / "pictures"
MOST_BYTES = 200_000


def timeline(browser: Browser, scratch: Path, out: Path) -> None:
    """The timeline in the Perfetto UI, with a step selected: its arguments and its arrows."""
    session = parse_session([RECORDING], scratch / "timeline", timeline=True)
    with opened(browser, session.path / "timeline.pftrace", (1400, 1040)) as ui:
        ui.page.evaluate("() => app.sidebar.toggleVisibility()")
        _select(ui, "Model steps", "mixed", first_ms=1130, last_ms=1290)
        # Under the table of arrows lie the arguments.
        ui.page.get_by_text("Arguments", exact=True).last.evaluate("e => e.scrollIntoView()")
        ui.settle()
        ui.page.screenshot(path=out)


def _select(ui: Ui, track: str, category: str, first_ms: int, last_ms: int) -> None:
    """Show a part of the timeline and select the longest step of a kind in it."""
    (start,) = ui.query("SELECT start_ts FROM trace_bounds")[0]
    low, high = start + first_ms * 1_000_000, start + last_ms * 1_000_000
    ((step,),) = ui.query(
        "SELECT slice.id FROM slice JOIN track ON track.id = track_id "
        f"WHERE track.name = '{track}' AND category = '{category}' "
        f"AND ts BETWEEN {low} AND {high} ORDER BY dur DESC LIMIT 1"
    )
    ui.page.evaluate(
        """([first, last, id]) => {
            app.trace.timeline.setViewportTime(BigInt(first), BigInt(last));
            app.trace.selection.selectSqlEvent('slice', id, {scrollToSelection: true});
        }""",
        [str(low), str(high), step],
    )
    ui.settle()


PICTURES: Mapping[str, Callable[[Browser, Path, Path], None]] = {"timeline": timeline}


def main() -> None:
    """Make the pictures that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(PICTURES)}")
    parser.add_argument("-o", "--output", type=Path, default=TARGET, help="folder to write into")
    options = parser.parse_args()
    place = environments.gather(["browser"])[environments.CHROMIUM_VARIABLE]
    if place.path is None:
        raise SystemExit(f"there is no browser here: {place.reason}")
    options.output.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="pictures-") as scratch,
        launched(place.path) as browser,
    ):
        for name in options.names or PICTURES:
            out = options.output / f"{name}.png"
            PICTURES[name](browser, Path(scratch), out)
            print(f"wrote {out} ({out.stat().st_size / 1000:.0f} kB)")
            if out.stat().st_size > MOST_BYTES:
                raise SystemExit(f"{out} is too large for the repository: make less of it")


if __name__ == "__main__":
    main()
