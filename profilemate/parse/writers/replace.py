"""Write a directory whole or not at all, and replace an old one without losing what is not ours."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from profilemate.errors import OutputError
from profilemate.parse.writers.leftovers import MOVING, NEW, unfinished_directory
from profilemate.parse.writers.session_names import listed_files
from profilemate.schema.live import METADATA

_REASONS = {
    errno.ENOSPC: ("no space is left there", "make room, or choose another disk with -o"),
    errno.EDQUOT: ("your quota is used up", "make room, or choose another disk with -o"),
    errno.EFBIG: ("a file may not be that large there", "see ulimit -f, or choose another -o"),
    errno.EACCES: ("you may not write there", "choose another directory with -o"),
    errno.EPERM: ("you may not write there", "choose another directory with -o"),
    errno.EROFS: ("the file system is read-only", "choose another directory with -o"),
    errno.ENOTDIR: ("part of the path is a file", "choose another directory with -o"),
    errno.EEXIST: ("part of the path is a file", "choose another directory with -o"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one with -o"),
}


def _output_error(error: OSError, path: Path, *, replaces: bool) -> OutputError:
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
    kept = "the old session is unchanged" if replaces else "nothing was left behind"
    return OutputError("cannot write the session", path=path, why=f"{reason}; {kept}", hint=hint)


def _place(target: Path) -> tuple[int, int] | None:
    """Which directory is there; None for none."""
    try:
        found = os.lstat(target)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _quicker(path: Path, *, gone: bool) -> OutputError:
    """What to say where somebody else changed the directory while this process wrote.

    Args:
        path: The directory.
        gone: It was there and is not any more.
    """
    if gone:
        why = "another process moved it away meanwhile, and this one wrote nothing"
        hint = "see what is there now, and try again"
    else:
        why = "another process wrote it meanwhile: that one is untouched, and this one left nothing"
        hint = "choose another directory with -o, or replace that one with --force"
    return OutputError("cannot write the session", path=path, why=why, hint=hint)


@contextmanager
def replaced_directory(out: Path, *, force: bool, ours: Callable[[str], bool]) -> Iterator[Path]:
    """Give an empty directory to fill, which becomes `out` when the block ends without an error.

    It is filled beside `out` and renamed at the end: whoever looks at `out` sees the old directory
    or the new one, never half of one, and after a failure still the old one. With `force` an
    existing directory is replaced if it is empty or a session of ours. Files in it that are not
    ours (notes, plots, the recording itself) are carried over; any other directory is refused,
    because naming it would be a slip of the hand. What a killed process left behind is removed by
    the next one that makes `out`; only one killed in the instant between the two renames leaves
    both directories in a hidden one beside `out`, for good.

    Args:
        out: The directory to make. Its parents are made too.
        force: Replace an existing one.
        ours: Whether a file of this relative path, with slashes, is one that we write.

    Raises:
        OutputError: It exists and may not be replaced, or cannot be written.
    """
    target = Path(os.path.realpath(out))  # through a link like `latest`, not instead of it
    old = may_replace(out, force=force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch, lock = unfinished_directory(target)
    except OSError as e:
        raise _output_error(e, target.parent, replaces=old) from e
    moves: list[tuple[Path, Path]] = []
    before = _place(target)
    try:
        new = scratch / NEW
        new.mkdir()  # a directory with the mode that the user's umask says; mkdtemp's is private
        yield new
        if old:
            (scratch / MOVING).touch()
            _carry_over(target, new, _of_session(target, ours), moves)
            _move(target, scratch / "old", moves)
        new.rename(target)
    except BaseException as e:  # an interrupt must not lose anything either
        if not _undo(moves):
            lock.close()
            raise OutputError(
                "cannot write the session",
                path=out,
                why=f"putting the old files back failed too: {e}",
                hint=f"they are all in {scratch}",
            ) from e
        _remove(scratch, lock)
        if isinstance(e, OSError) and _place(target) != before:
            raise _quicker(out, gone=_place(target) is None) from e
        if isinstance(e, OSError):
            raise _output_error(e, out, replaces=old) from e
        raise
    _remove(scratch, lock)


def _remove(scratch: Path, lock: IO[bytes]) -> None:
    # All is said and done by now: what is in the way of tidying up is no reason to fail.
    shutil.rmtree(scratch, ignore_errors=True)
    lock.close()


def _move(source: Path, destination: Path, moves: list[tuple[Path, Path]]) -> None:
    moves.append((source, destination))  # first, so that an interrupt finds it
    source.rename(destination)


def _undo(moves: list[tuple[Path, Path]]) -> bool:
    """Take back the moves that were done; False if one could not be."""
    complete = True
    for source, destination in reversed(moves):
        if os.path.lexists(destination) and not os.path.lexists(source):
            try:
                destination.rename(source)
            except OSError:
                complete = False
    return complete


def may_replace(out: Path, *, force: bool) -> bool:
    """Whether there is an old directory, which then may be replaced.

    Raises:
        OutputError: There is something that may not.
    """
    target = Path(os.path.realpath(out))
    if not os.path.lexists(target):
        return False
    if not target.is_dir():
        raise OutputError(
            "cannot write the session",
            path=out,
            why="a session is a directory of files, and this is a file",
            hint="choose a directory with -o",
        )
    if not force:
        raise OutputError(
            "will not overwrite without --force",
            path=out,
            why="the directory exists",
            hint="choose another directory with -o, or add --force",
        )
    try:
        foreign = any(target.iterdir()) and session_of(target) is None
    except OSError as e:
        raise _output_error(e, out, replaces=True) from e
    if foreign:
        raise OutputError(
            "will not replace this directory, not even with --force",
            path=out,
            why=f"it is not empty and not a session of profilemate (no {METADATA} of one)",
            hint="choose another directory with -o, or remove this one yourself",
        )
    return True


def session_of(directory: Path) -> dict[str, object] | None:
    """The metadata of a session directory, None for any other directory."""
    try:
        metadata = json.loads((directory / METADATA).read_bytes())
    # ValueError: no JSON, no UTF-8; RecursionError: brackets within brackets within brackets
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return None
    return metadata if isinstance(metadata, dict) and "session_id" in metadata else None


def _of_session(directory: Path, ours: Callable[[str], bool]) -> Callable[[str], bool]:
    listed = listed_files(session_of(directory))
    return lambda path: path in listed or ours(path)


def _carry_over(
    old: Path, new: Path, ours: Callable[[str], bool], moves: list[tuple[Path, Path]]
) -> None:
    """Move all that is not ours from the old directory to the same place in the new one."""
    foreign, _ = _foreign(old, PurePosixPath(), ours)
    for path in foreign:
        if os.path.lexists(new / path):
            raise OutputError(
                "will not overwrite this, not even with --force",
                path=old / path,
                why="it is not profilemate's and has the name of a file of the session",
                hint="move it away, or choose another directory with -o",
            )
        (new / path).parent.mkdir(parents=True, exist_ok=True)
        _move(old / path, new / path, moves)


def _foreign(
    old: Path, under: PurePosixPath, ours: Callable[[str], bool]
) -> tuple[list[PurePosixPath], bool]:
    """What in a directory is not ours, directories without any file of ours whole; is any ours?"""
    found: list[PurePosixPath] = []
    any_ours = False
    for entry in sorted(os.scandir(old / under), key=lambda e: e.name):
        path = under / entry.name
        if entry.is_dir(follow_symlinks=False):
            inside, holds_ours = _foreign(old, path, ours)
            found += inside if holds_ours else [path]
            any_ours |= holds_ours
        elif ours(str(path)):
            any_ours = True
        else:
            found.append(path)
    return found, any_ours
