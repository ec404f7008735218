"""A session directory that was written before, read back: what reports and exports are made of."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_string_dtype

from profilemate.errors import InputError
from profilemate.parse.session.metadata import Metadata
from profilemate.parse.session.warnings import SessionWarning
from profilemate.parse.tables import TABLES
from profilemate.parse.tables.base import Column
from profilemate.parse.tables.cuda_graph_latency import FURTHER_KEY_COLUMNS
from profilemate.parse.tables.cuda_graphs import KEY_COLUMNS
from profilemate.parse.writers.safe_cells import unguarded
from profilemate.printable import shell_word
from profilemate.schema.live import METADATA

_READ: dict[str, Any] = {
    "na_values": ["None"],
    "keep_default_na": False,
    "dtype_backend": "numpy_nullable",
}
_TEXTS = ("value", "ids")
"""Spellings of columns that may hold text."""

GRAPH_COLUMNS = tuple(column.name for column in (*KEY_COLUMNS, *FURTHER_KEY_COLUMNS))
"""What tells graphs apart in the tables."""


@dataclass(slots=True)
class SavedSession:
    """A session directory.

    Attributes:
        path: The directory; of a further rank, its folder under `ranks/`.
        metadata: What its metadata.json says; of a further rank, that of the whole session.
    """

    path: Path
    metadata: Metadata
    _frames: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)
    _lacking: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)
    _asked: set[str] = field(default_factory=set, repr=False)

    @classmethod
    def open(cls, path: Path) -> SavedSession:
        """Open the session in a directory.

        Raises:
            InputError: There is none, or its metadata cannot be read.
        """
        file = path / METADATA
        try:
            metadata = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as e:
            raise InputError(
                "This is no session directory",
                path=path,
                why=f"There is no {METADATA} in it.",
                hint="Make one:",
                command="profilemate parse TRACE -o session",
            ) from e
        except NotADirectoryError as e:
            raise InputError(
                "This is no session directory",
                path=path,
                why="It is a file; a session is a directory that was made of a recording.",
                hint="If it is a recording:",
                command=f"profilemate parse {shell_word(path)} -o session",
            ) from e
        except (OSError, ValueError) as e:
            raise _unreadable("The session", file, e) from e
        except RecursionError as e:
            raise _unreadable("The session", file, "its lists are nested too deeply") from e
        if not isinstance(metadata, dict):
            raise _unreadable("The session", file, "it is no JSON object")
        return cls(path, Metadata.from_json(metadata))

    def noting(self, asked: set[str]) -> SavedSession:
        """The same session, which notes in `asked` of which tables it is asked for rows."""
        return replace(self, _asked=asked)

    def note(self, asked: Iterable[str]) -> None:
        """Note tables that somebody else asked for on behalf of whoever has this session."""
        self._asked.update(asked)

    @property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Every table by its name, read when it is first asked for; see `table`.

        Those of events that others defined (`custom_<kind>`) are there where the session has them.
        """
        return _Tables(self)

    @property
    def warnings(self) -> list[SessionWarning]:
        """What whoever reads the figures must know: what was stored, and what the files lack."""
        return [*self.metadata.warnings, *self._column_warnings()]

    def lacks(self, name: str) -> frozenset[str]:
        """Columns of today that the file of a table does not have: nothing is known of them.

        A file that is not there, that cannot be read, or that is none of ours lacks nothing here:
        whoever asks for its rows learns what is wrong with it.
        """
        if name not in self._lacking:
            layout = TABLES[name]
            header: list[str] = []
            with suppress(OSError, ValueError):
                header = list(pd.read_csv(self.path / layout.file, nrows=0).columns)
            known = {c.name for c in layout.columns}
            ours = not layout.heading and not known.isdisjoint(header)
            self._lacking[name] = frozenset(known.difference(header) if ours else ())
        return self._lacking[name]

    def _column_warnings(self) -> list[SessionWarning]:
        found = []
        for name, layout in TABLES.items():
            if absent := self.lacks(name):
                names = ", ".join(c.name for c in layout.columns if c.name in absent)
                text = (
                    f"{layout.file} has no column {names}: another version of profilemate wrote "
                    "it, and what needs them is not known"
                )
                found.append(SessionWarning("columns-missing", text))
        return found

    def table(self, name: str) -> pd.DataFrame:
        """The table `name`, a key of `TABLES`, in nullable dtypes; `None` is NA.

        Times and shares are floats in the unit that the column's header says. A file that is not
        there is a table without rows, and a column that is not there holds NA: an older
        profilemate did not write it. See `lacks` and `warnings`.

        Raises:
            InputError: The file cannot be read.
        """
        self._asked.add(name)
        if name not in self._frames:
            layout = TABLES[name]
            file = self.path / layout.file
            columns = [c.name for c in layout.columns]
            try:
                if layout.heading:
                    self._frames[name] = _summary(file)
                else:
                    self._frames[name] = _rows(file, layout.columns, self._texts)
            except FileNotFoundError:
                self._frames[name] = pd.DataFrame(columns=columns)
            except (OSError, ValueError) as e:
                raise _unreadable("A table", file, e) from e
        return self._frames[name]

    def chunks(
        self, name: str, columns: Sequence[str], rows: int = 200_000
    ) -> Iterator[pd.DataFrame]:
        """Some columns of a table in pieces, for tables that are too long to hold whole.

        The pieces are as `table` has them, and are not kept. A file that is not there has none.

        Raises:
            InputError: The file cannot be read.
        """
        self._asked.add(name)
        file = self.path / TABLES[name].file
        there = [c for c in columns if c not in self.lacks(name)]
        try:
            with pd.read_csv(
                file,
                usecols=there,
                chunksize=rows,
                **_READ,
            ) as pieces:
                for piece in pieces:
                    yield _filled(self._texts(piece), columns)[list(columns)]
        except FileNotFoundError:
            return
        except (OSError, ValueError) as e:
            raise _unreadable("A table", file, e) from e

    def _texts(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What was read, without what guards it from spreadsheets."""
        return unguarded(frame, **_READ) if self.metadata.safe_csv else frame

    def ranks(self) -> dict[str, SavedSession]:
        """The further ranks of the session, by the name of their folder."""
        folder = self.path / "ranks"
        if not folder.is_dir():
            return {}
        return {p.name: SavedSession(p, self.metadata) for p in sorted(folder.iterdir())}


class _Tables(Mapping[str, pd.DataFrame]):
    """The tables of a session, as a mapping."""

    def __init__(self, session: SavedSession) -> None:
        self._session = session

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name in TABLES:
            return self._session.table(name)
        if name not in self._custom():
            raise KeyError(name)
        file = self._session.path / f"{name}.csv"
        try:
            frame: pd.DataFrame = pd.read_csv(file, **_READ)
        except (OSError, ValueError) as e:
            raise _unreadable("A table", file, e) from e
        return frame

    def __iter__(self) -> Iterator[str]:
        yield from TABLES
        yield from self._custom()

    def __len__(self) -> int:
        return len(TABLES) + len(self._custom())

    def _custom(self) -> list[str]:
        return sorted(file.stem for file in self._session.path.glob("custom_*.csv"))


def _rows(
    file: Path, columns: Sequence[Column], texts: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """The rows of a CSV file, which may have been edited, or have lost its end.

    Raises:
        ValueError: They are not what we write.
    """
    with file.open("rb") as opened:
        opened.seek(0, os.SEEK_END)
        if opened.tell():
            opened.seek(-1, os.SEEK_END)
            if opened.read() != b"\n":
                raise ValueError("its last line is not whole")
    frame = texts(pd.read_csv(file, **_READ))
    if not any(c.name in frame.columns for c in columns):
        raise ValueError(f"it has no column {', '.join(c.name for c in columns)}")
    frame = _filled(frame, [c.name for c in columns])
    for column in columns:
        values = frame[column.name].dropna()  # of nothing any type is made
        if column.spelling not in _TEXTS and len(values) and is_string_dtype(values.dtype):
            raise ValueError(f"something in its column {column.name} is no number")
    return frame


def _filled(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The frame with a column of NA for each that it lacks."""
    lost = [name for name in columns if name not in frame.columns]
    nothing = pd.array([pd.NA] * len(frame), dtype="Int64")
    return frame.assign(**dict.fromkeys(lost, nothing)) if lost else frame


def _unreadable(what: str, file: Path, why: object) -> InputError:
    said = str(why).strip().rstrip(".")
    return InputError(
        f"{what} cannot be read",
        path=file,
        why=f"{said}: was it cut short, edited, or written by another version?",
        hint="Parse the recording again:",
        command="profilemate parse TRACE -o SESSION --force",
    )


def _summary(file: Path) -> pd.DataFrame:
    """The `name: value` lines of a text file: one row of text, units and all, or none."""
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(": ", 1) for line in lines if ": " in line]
    return pd.DataFrame([dict(pairs)] if pairs else [])
