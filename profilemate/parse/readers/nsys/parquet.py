"""The parquet export of Nsight Systems: a directory with one file per table.

`nsys export --type parquetdir`, from 2023.4 on. Read through pyarrow, in batches; of the strings
only ours are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from profilemate import schema
from profilemate.errors import InputError, ToolError, missing_extra
from profilemate.parse.columns.arrays import Ints
from profilemate.parse.readers.base import OpenOptions
from profilemate.parse.readers.nsys.activity import read_activity
from profilemate.parse.readers.nsys.facts import Facts, note_absence, read_facts
from profilemate.parse.readers.nsys.layout import (
    EVENT_TYPES,
    Found,
    Tables,
    locate,
    pid_and_tid,
)
from profilemate.parse.recording.activity import ANNOTATION_PREFIXES, ActivitySink
from profilemate.parse.recording.contract import Marker, Recording, SourceInfo, SourceKind
from profilemate.parse.recording.progress import Progress

SUFFIX = ".parquet"
_BATCH = 1 << 16


class _Parquet:
    """The few calls into pyarrow, imported when the first directory is opened."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.compute
            import pyarrow.parquet
        except ImportError as e:
            raise ToolError(
                "Reading a parquet export needs pyarrow",
                path=path,
                why=str(e),
                hint="Install what it needs:",
                command=missing_extra("parquet"),
            ) from e
        self.arrow = pyarrow
        self.compute = pyarrow.compute
        self._file = pyarrow.parquet.ParquetFile
        self._path = path

    def broken(self, table: str, error: object) -> InputError:
        """What to say of the file of a table."""
        return InputError(
            "Cannot read the parquet export",
            path=self._path / (table + SUFFIX),
            why=f"It is damaged or was cut short ({error}).",
            hint="Export the report again:",
            command="nsys export --type parquetdir -f true REPORT.nsys-rep",
        )

    @contextmanager
    def open(self, table: str) -> Iterator[Any]:
        """The file of a table.

        Raises:
            InputError: It is damaged, here or where it is read.
        """
        try:
            with self._file(self._path / (table + SUFFIX)) as file:
                yield file
        except (self.arrow.ArrowException, OSError, UnicodeDecodeError) as e:
            raise self.broken(table, e) from e

    def columns(self, table: str) -> list[str]:
        """Names of a table's columns."""
        with self.open(table) as file:
            return list(file.schema_arrow.names)

    def batches(
        self,
        table: str,
        columns: Sequence[str],
        wanted: Callable[[Any], bool] = lambda group: True,
    ) -> Iterator[Any]:
        """Record batches with some columns of a table, of those row groups that are wanted."""
        with self.open(table) as file:
            facts = file.metadata
            groups: list[int] = []
            rows = 0
            # nsys writes groups of 2048 rows, and Arrow reads ahead as much as it is asked for.
            for number in range(facts.num_row_groups):
                group = facts.row_group(number)
                if wanted(group):
                    groups.append(number)
                    rows += group.num_rows
                if groups and (rows >= _BATCH or number == facts.num_row_groups - 1):
                    yield from file.iter_batches(_BATCH, groups, list(columns))
                    groups, rows = [], 0
            if groups:
                yield from file.iter_batches(_BATCH, groups, list(columns))


def _extremes(group: Any, column: int) -> tuple[Any, Any] | None:
    """Smallest and largest value of a column in a row group, as its writer says; None unknown."""
    told = group.column(column).statistics
    return (told.min, told.max) if told is not None and told.has_min_max else None


class ParquetStore:
    """A `Store` on a directory of parquet files."""

    def __init__(self, path: Path) -> None:
        self.parquet = _Parquet(path)
        self._path = path

    def tables(self) -> Tables:
        """Its tables and their columns; those that nobody asks for are not opened."""
        names = sorted(p.stem for p in self._path.glob(f"*{SUFFIX}"))
        known = {found.table for found in locate(dict.fromkeys(names, ()))}
        return {name: self.parquet.columns(name) for name in names if name in known}

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The rows of a small table."""
        for batch in self.parquet.batches(table, columns):
            yield from zip(*(batch.column(c).to_pylist() for c in columns), strict=True)

    def batches(
        self, table: str, columns: Sequence[str], where: tuple[str, Collection[int]] | None = None
    ) -> Iterator[dict[str, Ints]]:
        """The rows of a table in some columns; see `BatchStore`."""
        compute, arrow = self.parquet.compute, self.parquet.arrow
        for batch in self.parquet.batches(table, columns):
            if where is not None:
                ids = compute.cast(batch.column(where[0]), arrow.int64(), safe=False)
                wanted = compute.is_in(ids, arrow.array(where[1], type=arrow.int64()))
                batch = batch.filter(wanted)
            # The order of the file's columns need not be ours.
            yield {
                # Unsigned ones that need their highest bit are negative in sqlite, too.
                name: compute.fill_null(
                    compute.cast(batch.column(name), arrow.int64(), safe=False), 0
                ).to_numpy(zero_copy_only=False)
                for name in columns
            }

    def values(self, strings: Found, ids: Sequence[int]) -> dict[int, str]:
        """Strings by their number."""
        number, value = strings.columns["id"], strings.columns["value"]
        place = self.parquet.columns(strings.table).index(number)
        sought = np.array(sorted(ids), dtype=np.int64)

        def may_hold(group: Any) -> bool:
            known = _extremes(group, place)
            if known is None:
                return True
            first, after = np.searchsorted(sought, known[0]), np.searchsorted(sought, known[1] + 1)
            return bool(first < after)

        found: dict[int, str] = {}
        for batch in self.parquet.batches(strings.table, [number, value], may_hold):
            rows = np.flatnonzero(np.isin(batch.column(number).to_numpy(), sought))
            texts = batch.column(value).take(self.parquet.arrow.array(rows)).to_pylist()
            found |= zip(batch.column(number).to_numpy()[rows].tolist(), texts, strict=True)
        return found

    def extent(self, table: str, first: str, last: str) -> tuple[int, int] | None:
        """Smallest and largest time stamp in two columns."""
        names = list(dict.fromkeys((first, last)))
        told, compute = self._told(table, names), self.parquet.compute
        # CUPTI says 0 for begin and end of what it could not collect the time of.
        if told is None or (len(names) > 1 and 0 in told):
            told = []
            for batch in self.parquet.batches(table, names):
                zero = [compute.equal(batch.column(name), 0) for name in names]
                timed = compute.invert(compute.and_(zero[0], zero[-1]))
                rows = batch if len(names) == 1 else batch.filter(compute.fill_null(timed, True))
                for name in names:
                    told += compute.min_max(rows.column(name)).as_py().values()
        known = [end for end in told if end is not None]
        return (min(known), max(known)) if known else None

    def _told(self, table: str, names: Sequence[str]) -> list[int] | None:
        """The extremes of each row group, None where the file does not tell those of all."""
        found: list[int] = []
        with self.parquet.open(table) as file:
            facts, places = file.metadata, [file.schema_arrow.names.index(n) for n in names]
            for number in range(facts.num_row_groups):
                group = facts.row_group(number)
                for place in places:
                    known = _extremes(group, place)
                    told = group.column(place).statistics
                    if known is not None:
                        found += known
                    elif told is None or told.null_count != group.num_rows:
                        return None
        return found

    def check(self) -> None:
        """Make sure that all that is going to be read can be.

        Raises:
            InputError: A table is damaged, or a column of numbers holds something else.
        """
        types = self.parquet.arrow.types
        tables = locate(self.tables())
        if not tables:
            raise self.parquet.broken("*", "no table of nsys is there")
        for found in tables:
            numbers = {*found.columns} - {"text", "value", "name"}
            with self.parquet.open(found.table) as file:
                for name in numbers if found.spec.role in ("events", "gpu") else ():
                    type_ = file.schema_arrow.field(found.columns[name]).type
                    if not (types.is_integer(type_) or types.is_null(type_)):
                        raise self.parquet.broken(found.table, f"{name} is {type_}, no number")


class _ParquetRecording:
    def __init__(self, store: ParquetStore, facts: Facts, progress: Progress) -> None:
        self._store, self._facts, self._progress = store, facts, progress

    @property
    def info(self) -> SourceInfo:
        return self._facts.info

    def markers(self) -> Iterator[Marker]:
        events = self._facts.table("events")
        count = 0
        if events is not None:
            for marker in self._read(events, (schema.PREFIX,)):
                count += 1
                yield marker
        note_absence(self._facts, count)

    def annotations(self) -> Iterator[Marker]:
        events = self._facts.table("events")
        if events is not None:
            yield from self._read(events, ANNOTATION_PREFIXES)

    def activity(self, sink: ActivitySink) -> None:
        read_activity(self._store, self._facts, sink)

    def _begin(self, texts: Any, prefixes: Sequence[str]) -> Any:
        """The mask of the texts that begin with one of the prefixes; NULL does not."""
        compute = self._store.parquet.compute
        plain = compute.cast(texts, self._store.parquet.arrow.large_string())
        masks = [compute.fill_null(compute.starts_with(plain, p), False) for p in prefixes]
        return reduce(compute.or_, masks)

    def _strings(self, prefixes: Sequence[str]) -> tuple[np.ndarray[Any, Any], list[str]]:
        """Numbers (ascending) and texts of the strings that begin with one of the prefixes."""
        table = self._facts.table("strings")
        numbers: list[int] = []
        texts: list[str] = []
        if table is not None and not table.missing:
            number, value = table.columns["id"], table.columns["value"]
            for batch in self._store.parquet.batches(table.table, [number, value]):
                mine = batch.filter(self._begin(batch.column(value), prefixes))
                numbers += mine.column(number).to_pylist()
                texts += mine.column(value).to_pylist()
        order = np.argsort(np.array(numbers, dtype=np.int64), kind="stable")
        return np.array(numbers, dtype=np.int64)[order], [texts[i] for i in order]

    def _read(self, events: Found, prefixes: Sequence[str]) -> Iterator[Marker]:
        numbers, strings = self._strings(prefixes)
        facts, names = self._facts, events.columns
        what = f"reading {facts.info.path.name}"
        read = cut = 0
        for batch in self._store.parquet.batches(events.table, list(names.values())):
            read += batch.num_rows
            self._progress(what, read, None)
            column = {ours: batch.column(theirs) for ours, theirs in names.items()}
            for row, text in self._messages(column, numbers, strings, prefixes):
                start, thread = column["start"][row].as_py(), column["globalTid"][row].as_py() or 0
                end = column["end"][row].as_py() if "end" in column else None
                cut += end is not None and end == facts.open_end
                dur = None if end is None or end == facts.open_end else end - start
                yield Marker(start - facts.shift, dur, *pid_and_tid(thread), text)
        if cut and schema.PREFIX in prefixes:
            facts.info.notes.append(f"{cut} ranges were still open when the recording ended.")

    def _messages(
        self,
        column: dict[str, Any],
        numbers: np.ndarray[Any, Any],
        strings: list[str],
        prefixes: Sequence[str],
    ) -> Iterator[tuple[int, str]]:
        """Rows of a batch whose text begins with a prefix, in order, and their texts."""
        compute = self._store.parquet.compute
        types = self._store.parquet.arrow.array(EVENT_TYPES, type=column["eventType"].type)
        wanted = compute.fill_null(compute.is_in(column["eventType"], types), False)
        found: dict[int, str] = {}
        if "textId" in column and len(numbers):
            ids = compute.fill_null(column["textId"], -1).to_numpy(zero_copy_only=False)
            at = np.minimum(np.searchsorted(numbers, ids), len(numbers) - 1)
            mine = (numbers[at] == ids) & wanted.to_numpy(zero_copy_only=False)
            found = {int(row): strings[at[row]] for row in np.flatnonzero(mine)}
        if "text" in column:
            mask = compute.and_(self._begin(column["text"], prefixes), wanted)
            rows = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
            found |= {int(row): column["text"][int(row)].as_py() for row in rows}
        yield from sorted(found.items())


class NsysParquetReader:
    """Reads parquet exports; needs pyarrow, the extra `profilemate[parquet]`."""

    name = SourceKind.NSYS_PARQUET
    suffixes = ("_pqtdir",)

    def sniff(self, path: Path) -> bool:
        """Whether it is a directory with parquet files named after tables of nsys."""
        if not path.is_dir():
            return False
        return bool(locate({p.stem: () for p in path.iterdir() if p.suffix == SUFFIX}))

    def open(self, path: Path, options: OpenOptions) -> Recording:
        """Open an export.

        Raises:
            ToolError: pyarrow is not installed.
            InputError: A file is damaged, or the layout is not known.
        """
        return self._open(ParquetStore(path), path, options)

    def open_checked(self, path: Path, options: OpenOptions) -> Recording:
        """Open an export of which every table that is needed can be read for certain.

        Raises:
            ToolError: pyarrow is not installed.
            InputError: That is not so, or the layout is not known.
        """
        store = ParquetStore(path)
        store.check()
        return self._open(store, path, options)

    def _open(self, store: ParquetStore, path: Path, options: OpenOptions) -> Recording:
        size = sum(p.stat().st_size for p in path.glob(f"*{SUFFIX}"))
        facts = read_facts(store, path, self.name, size)
        assert facts is not None  # sniff looked
        return _ParquetRecording(store, facts, options.progress)
