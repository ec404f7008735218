"""What processes left behind that were killed while they wrote.

Whoever writes holds a lock on what is unfinished, and the system lets go of it when the process is
gone, however it went. Where a file system knows no locks nothing is ever taken for left behind.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LOCK = "lock"
MOVING = "moving"
"""Stands in an unfinished directory from when it may hold files of the user's."""
NEW = "new"
_PART = ".part"


def unfinished_file(target: Path) -> tuple[Path, IO[bytes]]:
    """Make a hidden file beside `target`, which is ours as long as it is open.

    What others left behind of the same `target` is removed.

    Raises:
        OSError: It cannot be made.
    """
    _sweep(target)
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_PART}")
        file = path.open("xb")
        if _claim(file.fileno(), path):
            return path, file
        file.close()


def unfinished_directory(target: Path) -> tuple[Path, IO[bytes]]:
    """Make a hidden directory beside `target`, which is ours as long as its lock is open.

    What others left behind of the same `target` is removed.

    Raises:
        OSError: It cannot be made.
    """
    _sweep(target)
    while True:
        path = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_PART, dir=target.parent))
        with suppress(FileNotFoundError):  # somebody swept it before we held it
            lock = (path / LOCK).open("xb")
            if _claim(lock.fileno(), path / LOCK):
                return path, lock
            lock.close()


def _claim(file: int, path: Path) -> bool:
    """Hold a file that we made; False if somebody swept it before we held it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:  # no locks here
        return True
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _sweep(target: Path) -> None:
    name = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}{re.escape(_PART)}")
    with suppress(OSError):
        for entry in list(os.scandir(target.parent)):
            if not name.fullmatch(entry.name):
                continue
            path = Path(entry.path)
            if entry.is_file(follow_symlinks=False):
                with _abandoned(path) as abandoned:
                    if abandoned:
                        path.unlink()
            elif entry.is_dir(follow_symlinks=False):
                with _abandoned(path / LOCK) as abandoned:
                    if abandoned and not _holds_files_of_others(path):
                        shutil.rmtree(path, ignore_errors=True)


def _holds_files_of_others(scratch: Path) -> bool:
    # Once `new` has gone to its place, only what it replaced is left.
    return (scratch / MOVING).exists() and (scratch / NEW).exists()


@contextmanager
def _abandoned(lock: Path) -> Iterator[bool]:
    """Whether nobody holds a file; it is ours until the block ends."""
    try:
        file = lock.open("r+b")
    except OSError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or no locks here
            yield False
        else:
            yield True
