"""Write one file whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from profilemate.errors import OutputError


def write_file(out: Path, text: str, *, force: bool) -> None:
    """Write a text as UTF-8; whoever reads `out` meanwhile sees the old one or the new one.

    Args:
        out: The file; through a link, what it points to.
        text: What it shall hold.
        force: Replace an existing file.

    Raises:
        OutputError: It exists and may not be replaced, or cannot be written.
    """
    target = Path(os.path.realpath(out))
    if target.is_dir():
        raise OutputError(
            "cannot write the file",
            path=out,
            why="this is a directory",
            hint="choose a file with -o",
        )
    if target.exists() and not force:
        raise OutputError(
            "will not overwrite without --force",
            path=out,
            why="the file exists",
            hint="choose another file with -o, or add --force",
        )
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        unfinished.replace(target)
    except OSError as e:
        raise OutputError(
            "cannot write the file",
            path=out,
            why=e.strerror or str(e),
            hint="choose another file with -o",
        ) from e
    finally:
        with suppress(OSError):
            unfinished.unlink()
