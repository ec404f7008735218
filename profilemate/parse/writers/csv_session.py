"""The session directory: one CSV file per table, a summary, and metadata."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pandas as pd

from profilemate.parse.writers.replace import may_replace, replaced_directory
from profilemate.parse.writers.safe_cells import ColumnLayout, guarded
from profilemate.parse.writers.session_names import session_file
from profilemate.parse.writers.spelling import SPELLINGS, UNITS
from profilemate.schema.live import METADATA


class TableLayout(Protocol):
    """A table as a writer needs it. `profilemate.parse.tables.Table` is one."""

    @property
    def file(self) -> str:
        """Its file's name."""

    @property
    def heading(self) -> str:
        """Heading of a text file; empty for a CSV file."""

    @property
    def columns(self) -> Sequence[ColumnLayout]:
        """Its columns, in order."""


Rows = pd.DataFrame | Iterable[pd.DataFrame]
Fast = Callable[[pd.DataFrame, Sequence[str]], memoryview]

_SLICE = 1 << 16  # rows


class CsvSession:
    """Writes a session directory, whole or not at all.

    Args:
        out: The directory to make.
        layout: How each table is spelled, by name: `profilemate.parse.tables.TABLES`.
        force: Replace `out` if it exists and is empty or a session; see `replaced_directory`.
        safe: Guard texts that a spreadsheet would run; see `safe_cells`.
    """

    def __init__(
        self, out: Path, layout: Mapping[str, TableLayout], *, force: bool, safe: bool = False
    ) -> None:
        self._out = out
        self._layout = layout
        self._force, self._safe = force, safe
        self._is_ours = session_file(table.file for table in layout.values())

    def check(self) -> None:
        """Refuse what `write` would refuse at its end, before the work is done.

        Raises:
            OutputError: The directory exists and may not be replaced.
        """
        may_replace(self._out, force=self._force)

    def write(
        self,
        tables: Mapping[str, Rows],
        metadata: Mapping[str, object],
        ranks: Mapping[str, Mapping[str, Rows]] | None = None,
        more: Callable[[Path], Mapping[str, object]] | None = None,
    ) -> Path:
        """Write the tables of the lead process, the metadata, and the tables of other processes.

        Args:
            tables: Frames by the name of their table, or parts of one; asked for one at a time, and
                not kept.
            metadata: What goes into `metadata.json`, as JSON can spell it; `files` is added, the
                list of all files that were written.
            ranks: Tables of further ranks, by the name of their directory in `ranks/`.
            more: Called when the tables are written. Puts files of other writers into the
                directory, named in `session_names.FURTHER_FILES`, and returns what else
                `metadata.json` shall say.

        Returns:
            The session directory.

        Raises:
            OutputError: It exists and may not be replaced, or cannot be written.
        """
        with replaced_directory(self._out, force=self._force, ours=self._is_ours) as directory:
            self._write_tables(directory, tables)
            for rank, frames in (ranks or {}).items():
                (directory / "ranks" / rank).mkdir(parents=True)
                self._write_tables(directory / "ranks" / rank, frames)
            said = {**metadata, **(more(directory) if more else {})}
            files = [p for p in directory.rglob("*") if p.is_file()]
            listed = sorted([METADATA, *(str(p.relative_to(directory)) for p in files)])
            text = json.dumps({**said, "files": listed}, indent=2, sort_keys=True)
            _write(directory / METADATA, text + "\n")
        return self._out

    def _write_tables(self, directory: Path, tables: Mapping[str, Rows]) -> None:
        for name, rows in tables.items():
            layout = self._layout[name]
            if layout.heading:
                (frame,) = [rows] if isinstance(rows, pd.DataFrame) else rows
                _write(directory / layout.file, summary_text(frame, layout))
            else:
                write_csv(directory / layout.file, rows, layout, safe=self._safe)


def spelled(frame: pd.DataFrame, columns: Sequence[ColumnLayout]) -> list[list[str]]:
    """The columns as text."""
    return [SPELLINGS[column.spelling](frame[column.name]) for column in columns]


def write_csv(path: Path, rows: Rows, layout: TableLayout, *, safe: bool = False) -> None:
    """Write one table: a header always, line feeds, quotes only where a value needs them.

    A `safe` one has no cell that a spreadsheet takes for a formula; see `safe_cells`.
    """
    names, fast = [column.name for column in layout.columns], _arrow()
    with path.open("wb") as file:
        file.write(_text([names]))
        for frame in [rows] if isinstance(rows, pd.DataFrame) else rows:
            assert list(frame.columns) == names, layout.file
            # In slices: the text of a table is many times its frame.
            for start in range(0, len(frame), _SLICE):
                part = frame.iloc[start : start + _SLICE]
                part = guarded(part, layout.columns) if safe else part
                file.write(_rows(part, layout, fast))


def _rows(part: pd.DataFrame, layout: TableLayout, fast: Fast | None) -> bytes | memoryview:
    if fast is not None:
        with suppress(UnicodeEncodeError):
            return fast(part, [column.spelling for column in layout.columns])
    return _text(zip(*spelled(part, layout.columns), strict=True))


class _Lines:
    """Takes rows that end with carriage return and line feed, and writes them with the latter.

    The csv module quotes a text that holds what ends its lines, and no other end of a line.
    """

    def __init__(self, text: io.StringIO) -> None:
        self._text = text

    def write(self, row: str) -> int:
        return self._text.write(f"{row[:-2]}\n")


def _text(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(_Lines(text), lineterminator="\r\n").writerows(rows)
    # Request ids are foreign text: a lone surrogate must not cost the user the table.
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def _arrow() -> Fast | None:
    """What spells rows in columns, where pyarrow is installed."""
    try:
        from profilemate.parse.writers.arrow_rows import encoded
    except ImportError:
        return None
    return encoded


def summary_text(frame: pd.DataFrame, layout: TableLayout) -> str:
    """A heading and `name: value` lines; no lines for a frame without a row."""
    columns = [c for c in layout.columns if c.name in frame.columns] if len(frame) else []
    lines = [layout.heading, "=" * 50, ""]
    for column, (text, *_) in zip(columns, spelled(frame, columns), strict=True):
        unit = "" if text == "None" else UNITS.get(column.spelling, "")
        lines.append(f"{column.name}: {text}{unit}")
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
