"""Compare what two checkouts make of the same recordings, byte for byte.

    scripts/same_output OLD NEW [RECORDING ...]

OLD and NEW are clones of this repository, each with its own `.venv` (`scripts/setup venv`). Without
recordings, those that come with NEW are taken, and those in the folder PROFILEMATE_REAL_TRACES. For
each of them both parse it; every file of the two sessions must be equal, and so must what the
commands say of it. `metadata.json` may have gained keys, and must have kept the others. Ends with 1
if anything differs, after all of it was compared.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = (".json", ".json.gz", ".json.zst", ".sqlite", ".nsys-rep")
SAID = {
    "report": ("report", "{session}"),
    "findings": ("report", "{session}", "--json"),
    "metrics": ("export", "{session}"),
    "timeline": ("perfetto", "{recording}", "--no-cache", "-q", "-f", "-o", "{folder}/t.pftrace"),
}
"""Commands whose exit code, output and files are compared, after the session was written."""


@dataclass(frozen=True)
class Checkout:
    """A clone, and what its program does."""

    root: Path

    def run(self, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run profilemate in an empty environment, in `folder`."""
        python = self.root / ".venv" / "bin" / "python"
        code = f"import sys; sys.path.insert(0, {str(self.root)!r}); "
        code += "sys.argv[0] = 'profilemate'; from profilemate.cli import main; sys.exit(main())"
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
        return subprocess.run(
            [python, "-c", code, *arguments],
            cwd=folder,
            env=kept | {"PROFILEMATE_CACHE_MB": "0", "COLUMNS": "100"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )


def recordings(root: Path) -> Iterator[Path]:
    """What comes with a checkout, and the real traces that lie elsewhere."""
    folders = [root / "tests" / "data"]
    if real := os.environ.get("PROFILEMATE_REAL_TRACES"):
        folders.append(Path(real))
    for folder in folders:
        found = (p for p in sorted(folder.rglob("*")) if p.name.endswith(SUFFIXES))
        yield from (p for p in found if "expected" not in p.parts)


def made(checkout: Checkout, recording: Path, folder: Path) -> dict[str, Any]:
    """Everything that a checkout makes of a recording, by name: bytes, text or exit code."""
    folder.mkdir(parents=True)
    done = checkout.run("parse", str(recording), "-o", "session", "--no-cache", folder=folder)
    found: dict[str, Any] = {"parse": (done.returncode, done.stdout, _plain(done.stderr))}
    session = folder / "session"
    for file in sorted(p for p in session.rglob("*") if p.is_file()):
        found[f"session/{file.relative_to(session)}"] = file.read_bytes()
    if done.returncode == 0:
        for name, words in SAID.items():
            places = {"session": "session", "recording": str(recording), "folder": "."}
            run = checkout.run(*(w.format(**places) for w in words), folder=folder)
            found[name] = (run.returncode, run.stdout, _plain(run.stderr))
    if (folder / "t.pftrace").exists():
        found["t.pftrace"] = (folder / "t.pftrace").read_bytes()
    return found


def _plain(text: str) -> str:
    """Messages without how far the program had come when it printed them."""
    return "\n".join(line for line in text.splitlines() if "%" not in line)


def differences(name: str, old: Any, new: Any) -> list[str]:
    """What differs between two of the same name, in lines for people; empty if nothing does."""
    if old == new:
        return []
    if name.endswith("metadata.json") and isinstance(old, bytes) and isinstance(new, bytes):
        return _lost(json.loads(old), json.loads(new))
    if old is None or new is None:
        return ["only in the " + ("new" if old is None else "old") + " one"]
    if isinstance(old, tuple):
        texts = [f"exit code {o[0]}\n{o[1]}\n{o[2]}" for o in (old, new)]
    else:
        texts = [data.decode("utf-8", "replace") for data in (old, new)]
        if name.endswith(".pftrace"):
            return [f"{len(old)} and {len(new)} bytes, which differ"]
    before, after = (text.splitlines() for text in texts)
    lines = difflib.unified_diff(before, after, n=0, lineterm="")
    return list(lines)[2:12]


def _lost(old: Any, new: Any, place: str = "") -> list[str]:
    """Values of a JSON document that another one has not, or has otherwise; it may have more."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for k in old for line in _lost(old[k], new.get(k), f"{place}.{k}")]
    return [] if old == new else [f"{place or '.'}: {old!r} became {new!r}"[:300]]


def main() -> int:
    """Run as a program; see the top of this file."""
    parser = argparse.ArgumentParser(description="Compare what two checkouts make of recordings.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("recordings", type=Path, nargs="*")
    options = parser.parse_args()
    old, new = (Checkout(place.resolve()) for place in (options.old, options.new))
    differing = compared = 0
    with tempfile.TemporaryDirectory() as scratch:
        for number, recording in enumerate(options.recordings or recordings(new.root)):
            whole = recording.resolve()
            both = [
                made(checkout, whole, Path(scratch) / f"{number}" / name)
                for name, checkout in (("old", old), ("new", new))
            ]
            compared += 1
            bad = 0
            for name in sorted(both[0].keys() | both[1].keys()):
                for line in differences(name, both[0].get(name), both[1].get(name)):
                    bad += 1
                    print(f"{recording}: {name}: {line}")
            differing += bool(bad)
            print(f"{recording}: {'differs' if bad else 'equal'}", flush=True)
    print(f"{compared} recordings compared, {differing} differ")
    return 1 if differing or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
