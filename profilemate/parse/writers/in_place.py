"""Update a session that somebody is still writing markers into."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from profilemate.errors import OutputError
from profilemate.parse.writers.leftovers import NEW, unfinished_directory
from profilemate.parse.writers.replace import session_of
from profilemate.parse.writers.session_names import listed_files
from profilemate.schema.live import METADATA

T = TypeVar("T")


def updated(session: Path, write: Callable[[Path], T]) -> T:
    """Have `write` make a session elsewhere and move its files into `session`, one by one.

    The directory itself stays, and with it the markers, whoever has it open, and whatever else lies
    there. Each file is the old one or the new one, never half of one; metadata.json is last. When
    `write` fails nothing has changed. Tables that the session had before and has no more are
    removed; no other file is touched, whatever a `metadata.json` lists.

    Args:
        session: The directory.
        write: Makes a session where it is told to.

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
    old = listed_files(session_of(session))
    root = os.open(session, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in sorted(files, key=lambda name: name == METADATA):
            with _folder(root, name, make=True) as folder:
                os.replace(new / name, Path(name).name, dst_dir_fd=folder)
        for name in old - set(files):
            with suppress(OSError), _folder(root, name, make=False) as folder:
                os.unlink(Path(name).name, dir_fd=folder)
    finally:
        os.close(root)


@contextmanager
def _folder(root: int, name: str, *, make: bool) -> Iterator[int]:
    """The open folder of a file below an open one; a link on the way is refused, not followed.

    Args:
        root: Descriptor of the session directory.
        name: Path of the file in it.
        make: Make the folders that are not there.

    Raises:
        OSError: One of them is missing, a link or no folder.
    """
    opened: list[int] = []
    try:
        for part in Path(name).parts[:-1]:
            at = opened[-1] if opened else root
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=at)
            opened.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at))
        yield opened[-1] if opened else root
    finally:
        for descriptor in opened:
            os.close(descriptor)
