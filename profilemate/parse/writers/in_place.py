"""Update a session that somebody is still writing markers into."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from profilemate.errors import OutputError
from profilemate.parse.writers.leftovers import NEW, unfinished_directory
from profilemate.parse.writers.replace import METADATA, session_of

T = TypeVar("T")


def updated(session: Path, write: Callable[[Path], T]) -> T:
    """Have `write` make a session elsewhere and move its files into `session`, one by one.

    The directory itself stays, and with it the markers, whoever has it open, and whatever else lies
    there. Each file is the old one or the new one, never half of one; metadata.json is last. When
    `write` fails nothing has changed.

    Raises:
        OutputError: The directory cannot be written.
    """
    try:
        scratch, lock = unfinished_directory(session / "parse")
    except OSError as e:
        raise _refused(session, e) from e
    try:
        new = scratch / NEW
        made = write(new)
        facts = json.loads((new / METADATA).read_text(encoding="utf-8"))
        facts |= {"session_id": session.name, "output_dir": str(session)}
        text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
        (new / METADATA).write_text(text, encoding="utf-8")
        _move(new, session, [str(name) for name in facts["files"]])
    except OSError as e:
        raise _refused(session, e) from e
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.close()
    return made


def _refused(session: Path, error: OSError) -> OutputError:
    return OutputError(
        "cannot write the session",
        path=session,
        why=error.strerror or str(error),
        hint="name another directory with -o",
    )


def _move(new: Path, session: Path, files: list[str]) -> None:
    before = (session_of(session) or {}).get("files")
    old = {f for f in before if isinstance(f, str)} if isinstance(before, list) else set()
    for name in sorted(files, key=lambda name: name == METADATA):
        (session / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(new / name, session / name)
    for name in old - set(files):
        with suppress(OSError):
            (session / name).unlink()
