"""Write one file, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from profilemate.errors import OutputError
from profilemate.parse.writers.leftovers import unfinished_file


def may_write(out: Path, *, force: bool, what: str = "file", hint: str | None = None) -> None:
    """Refuse a file that may not be written, before the work is done.

    Raises:
        OutputError: It exists and may not be replaced, or is a directory.
    """
    if out.is_dir():
        raise OutputError(
            f"cannot write the {what}",
            path=out,
            why="this is a directory",
            hint=hint or "choose a file with -o",
        )
    if out.exists() and not force:
        raise OutputError(
            "will not overwrite without --force",
            path=out,
            why="the file exists",
            hint="choose another file with -o, or add --force",
        )


@contextmanager
def replaced_file(
    out: Path, *, force: bool, what: str = "file", hint: str | None = None
) -> Iterator[IO[bytes]]:
    """Give a file to fill, which becomes `out` when the block ends without an error.

    Args:
        out: The file.
        force: Replace one that is there.
        what: What it is, in the error.
        hint: What to do about an error; another file with -o if not given.

    Raises:
        OutputError: See `may_write`; or it cannot be written.
    """
    may_write(out, force=force, what=what, hint=hint)
    target = Path(os.path.realpath(out))  # through a link, not instead of it
    unfinished: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished, opened = unfinished_file(target)
        with opened as file:
            yield file
            file.flush()
            unfinished.replace(target)
    except OSError as e:
        raise OutputError(
            f"cannot write the {what}",
            path=out,
            why=e.strerror or str(e),
            hint=hint or "choose another file with -o",
        ) from e
    finally:
        if unfinished is not None:
            with suppress(OSError):
                unfinished.unlink()


def write_file(
    out: Path, text: str, *, force: bool, what: str = "file", hint: str | None = None
) -> None:
    """Write a text as UTF-8; whoever reads `out` meanwhile sees the old one or the new one.

    Raises:
        OutputError: See `replaced_file`.
    """
    with replaced_file(out, force=force, what=what, hint=hint) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))
