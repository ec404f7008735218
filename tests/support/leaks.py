"""Looks for words in files, packed ones and databases too: what must not be in a scrubbed copy."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from profilemate import schema
from profilemate.errors import InputError
from profilemate.parse.readers.nsys.sqlite import MAGIC
from profilemate.parse.readers.nsys.store import connect, quoted


def find_leaks(path: Path | str, words: Sequence[str]) -> list[str]:
    """Where a file, or the files of a directory, hold any of some words.

    Every value of every table of an sqlite database is looked through, compressed files are
    looked through uncompressed, and the bytes of every file as they are. Case does not matter;
    a word is also found percent-encoded, as our messages spell it.

    Returns:
        A sentence for each place, none if nothing was found.

    Raises:
        InputError: The path does not exist or cannot be read.
    """
    path = Path(path)
    needles = {
        spelling.casefold(): word
        for word in words
        if word
        for spelling in (word, schema.encode_str(word))
    }
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        return [f"{file}: {leak}" for file in files for leak in _leaks_of_file(file, needles)]
    except OSError as e:
        raise InputError("Cannot look through this", path=path, why=e.strerror or str(e)) from e


def _leaks_of_file(file: Path, needles: dict[str, str]) -> list[str]:
    leaks = [f"the file's name has {word!r}" for word in _words_in(file.name, needles)]
    raw = file.read_bytes()
    leaks += [f"its bytes have {w!r}" for w in _words_in(raw.decode("utf-8", "replace"), needles)]
    if raw.startswith(b"\x1f\x8b"):
        text = gzip.decompress(raw).decode("utf-8", "replace")
        leaks += [f"its content has {word!r}" for word in _words_in(text, needles)]
    if raw.startswith(MAGIC):
        leaks += _leaks_of_database(file, needles)
    return leaks


def _leaks_of_database(file: Path, needles: dict[str, str]) -> list[str]:
    found: dict[str, None] = {}
    with closing(connect(file)) as connection:
        tables = [t for (t,) in connection.execute("SELECT name FROM sqlite_master WHERE sql > ''")]
        for table in ["sqlite_master", *tables]:
            for row in connection.execute(f"SELECT * FROM {quoted(table)}"):
                text = "\n".join(str(value) for value in row)
                found |= {f"table {table} has {w!r}": None for w in _words_in(text, needles)}
    return list(found)


def _words_in(text: str, needles: dict[str, str]) -> list[str]:
    text = text.casefold()
    return list(dict.fromkeys(word for needle, word in needles.items() if needle in text))
