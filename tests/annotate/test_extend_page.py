"""What docs/extending.md shows and says is so."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from extending import PAGE, Make, add
from listsink import ListSink
from places import ROOT

from profilemate import annotate
from profilemate.annotate import current
from profilemate.annotate.settings import Settings
from profilemate.schema import custom

pytestmark = pytest.mark.usefixtures("nothing_registered")


def test_the_example_of_the_page_runs(
    layout: None,
    sink: ListSink,
    on: Settings,
    request_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Extracted, imported as a plugin, through the parser, to the file that the page promises."""
    page = PAGE.read_text(encoding="utf-8")
    example = re.search(r"<!-- example: (my_\w+)\.py -->\n```python\n(.*?)```", page, re.DOTALL)
    assert example
    (tmp_path / f"{example[1]}.py").write_text(example[2])
    monkeypatch.syspath_prepend(str(tmp_path))
    variable = re.search(r"PROFILEMATE_PLUGINS=(\w+)$", page, re.MULTILINE)
    assert variable
    annotate.install(on, env={"PROFILEMATE_PLUGINS": variable[1]})
    scheduler = add(request_of, "a, b", "c")
    scheduler.add_request(request_of("big", 2000))
    assert current.emitter is not None
    current.emitter.flush()
    session = parsed(sink.messages, tmp_path)
    with (session / "custom_arrival.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    named = re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)
    columns = [c for cell in named for c in re.findall(r"`(\w+)`", cell)]
    assert header[: len(columns)] == columns
    assert header[len(columns) :] == ["waiting", "long"]
    assert [row[3:] for row in rows] == [
        ["a, b", "16", "1", "False"],
        ["c", "16", "2", "False"],
        ["big", "2000", "3", "True"],
    ]


def parsed(messages: list[str], folder: Path) -> Path:
    """What `profilemate parse` makes of messages: in a process of its own, without the plugin."""
    script = """
import sys
from pathlib import Path
sys.path.append("tests/support")
from decoded import decode_recordings
from profilemate.parse.pipeline import write_session
from profilemate.parse.recording.contract import Marker, SourceInfo, SourceKind
class Stored:
    info = SourceInfo(Path("x"), SourceKind.TORCH, 0, start_unix_ns=0)
    def markers(self):
        texts = enumerate(Path(sys.argv[1]).read_text().splitlines())
        return iter([Marker(10**10 + i, None, 7, 7, text) for i, text in texts])
    def annotations(self): return iter(())
    def activity(self, sink): pass
write_session(decode_recordings([Stored()]), Path(sys.argv[2]))
"""
    (folder / "messages").write_text("\n".join(messages))
    command = [sys.executable, "-c", script, str(folder / "messages"), str(folder / "session")]
    subprocess.run(command, check=True, cwd=ROOT)
    return folder / "session"


def test_the_spelling_of_the_page_is_the_real_one() -> None:
    request = SimpleNamespace(request_id="cmpl-7", num_prompt_tokens=170)
    page = PAGE.read_text(encoding="utf-8")
    spaces: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)track\(", page, re.DOTALL)[0], spaces)
    said = spaces["arrival"](SimpleNamespace(waiting=[1, 2, 3]), {"request": request}, None)
    text = custom.encode(5132, 870, "arrival", custom.encode_fields("arrival", said))
    assert f"\n{text}\n" in page
