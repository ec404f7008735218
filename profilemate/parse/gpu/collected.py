"""The sink that keeps what recordings hold of the GPU, each recording with its number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Columns, Ints, compact
from profilemate.parse.gpu.fold_in_order import Fold, UnorderedError
from profilemate.parse.gpu.work import OVERLAP_COLUMNS, WORK_COLUMNS
from profilemate.parse.recording.activity import (
    GPU_COLUMNS,
    LAUNCH_COLUMNS,
    START_COLUMNS,
    FoldedRecords,
)
from profilemate.parse.recording.contract import Recording

Parts = list[dict[str, npt.NDArray[Any]]]

_KINDS: Mapping[str, tuple[str, ...]] = {
    "launches": tuple(LAUNCH_COLUMNS),
    "starts": tuple(START_COLUMNS),
    "gpu": tuple(GPU_COLUMNS),
    "work": WORK_COLUMNS,
    "overlaps": OVERLAP_COLUMNS,
}

_TIMES = ("ts", "dur", "start", "end")  # nothing is gained by looking for their extremes
_WIDE = (*_TIMES, "pid")  # columns that are computed with


class Collected:
    """An `ActivitySink` that keeps the columns of several recordings.

    Attributes:
        api_calls: API calls by name; None as long as no recording had any API trace.
    """

    def __init__(self, *, records: bool = True) -> None:
        """An empty one.

        Args:
            records: Keep GPU records too, not only what they are folded to.
        """
        self.api_calls: Counter[str] | None = None
        self._records = records
        self._parts: dict[str, Parts] = {kind: [] for kind in _KINDS}
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._fold = Fold()
        self._pending: dict[str, int] = {}
        self._patient = False
        self._next = 0

    def read(self, number: int, recording: Recording) -> None:
        """Take all that a recording holds.

        Raises:
            InputError: It is damaged beyond reading.
        """
        calls, notes = self.api_calls, len(recording.info.notes)
        for patient in (False, True):
            self._patient, self._fold = patient, Fold(self._next)
            self._pending = {kind: len(parts) for kind, parts in self._parts.items()}
            self.api_calls = None if calls is None else calls.copy()
            try:
                recording.activity(self)
                work, overlaps = self._fold.finish()
                break
            except UnorderedError:
                # Its records are not in the order that they are in everywhere else: fold them
                # when all are there.
                for kind, length in self._pending.items():
                    del self._parts[kind][length:]
                del recording.info.notes[notes:]
        self._next = self._fold.next_id
        self._parts["work"] += work
        self._parts["overlaps"] += overlaps
        self._translate(self._fold.names)
        self._fold = Fold()
        for kind, done in self._pending.items():
            for part in self._parts[kind][done:]:
                count = len(next(iter(part.values())))
                part["recording"] = compact(np.full(count, number, dtype=np.int64))

    def take(self, number: int, other: Collected) -> None:
        """Take all that another one read, as what a recording of this number holds."""
        ours = np.array([self._number(name) for name in other.every_name], dtype=np.int64)
        first = self._next
        for kind, parts in other._parts.items():
            for part in parts:
                if "name" in part:
                    part["name"] = compact(ours[part["name"]])
                for name in {"id", "row"} & part.keys():
                    part[name] = compact(part[name].astype(np.int64) + first)
                count = len(next(iter(part.values())))
                part["recording"] = compact(np.full(count, number, dtype=np.int64))
                self._parts[kind].append(part)
        other._parts = {kind: [] for kind in _KINDS}
        self._next += other._next
        if other.api_calls is not None:
            self.calls(other.api_calls)

    def launches(self, batch: Columns) -> None:
        """Take graph launches."""
        self._add("launches", batch)

    def starts(self, batch: Columns) -> None:
        """Take other calls."""
        self._add("starts", batch)

    def gpu(self, batch: Columns) -> None:
        """Take GPU records."""
        if len(batch["start"]):
            if self._records:
                self._add("gpu", batch)
            self._fold.add(batch)

    def folded(
        self, records: FoldedRecords, names: Sequence[str], process: Callable[[Ints], Ints]
    ) -> None:
        """Take GPU records that were folded already."""
        work, overlaps = records.finish(names)
        first = self._fold.reserve(len(work["start"]))
        work["pid"] = process(work["correlation"])
        work["id"] = np.arange(first, first + len(work["pid"]))
        overlaps["pid"] = work["pid"][overlaps["row"]]
        overlaps["row"] = overlaps["row"] + first
        self._parts["work"].append({n: compact(work.pop(n)) for n in WORK_COLUMNS})
        self._parts["overlaps"].append({n: overlaps[n] for n in OVERLAP_COLUMNS})
        for batch in records.records() if self._records else ():
            self._add("gpu", {**batch, "pid": process(batch["correlation"])})

    def until(self, ts: int) -> None:
        """Fold what is over, unless the recording was found to break such promises."""
        if not self._patient:
            self._fold.until(ts)

    def names(self, names: Mapping[int, str]) -> None:
        """Take names."""
        self._fold.names.update(names)

    def calls(self, counts: Mapping[str, int]) -> None:
        """Count API calls."""
        self.api_calls = Counter() if self.api_calls is None else self.api_calls
        self.api_calls.update(counts)

    def _translate(self, names: Mapping[int, str]) -> None:
        """Give the names of this recording numbers that all recordings share."""
        theirs = np.array(sorted(names), dtype=np.int64)
        ours = np.array([self._number(names[int(n)]) for n in theirs], dtype=np.int64)
        for kind in ("launches", "gpu"):
            for part in self._parts[kind][self._pending[kind] :]:
                part["name"] = _translated(part["name"], theirs, ours, self._number(""))

    def _number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
        return number

    def _add(self, kind: str, batch: Columns) -> None:
        part = {name: np.asarray(batch[name], dtype=np.int64) for name in _KINDS[kind]}
        if len(part["pid"]):
            self._parts[kind].append({n: v if n in _TIMES else compact(v) for n, v in part.items()})

    def columns(self, kind: str) -> dict[str, Ints]:
        """All columns of a kind, with the number of the recording.

        The kinds are `launches`, `starts`, `gpu` (empty unless records are kept), and what these
        are folded to, `work` and `overlaps` (see `fold_in_order`).
        """
        parts, self._parts[kind] = self._parts[kind], []
        found: dict[str, Any] = {}
        for name in (*_KINDS[kind], "recording"):
            empty = np.empty(0, dtype=np.uint64 if name == "sequence" else np.int64)
            values = np.concatenate([p.pop(name) for p in parts]) if parts else empty
            found[name] = values.astype(np.int64, copy=False) if name in _WIDE else values
        return found

    @property
    def every_name(self) -> list[str]:
        """Names by their number in the columns `name`."""
        return self._names


def _translated(
    values: npt.NDArray[Any], theirs: Ints, ours: Ints, unknown: int
) -> npt.NDArray[Any]:
    if not len(theirs):
        return np.full(len(values), unknown, dtype=np.int64)
    at = np.minimum(np.searchsorted(theirs, values), len(theirs) - 1)
    return np.where(theirs[at] == values, ours[at], unknown)


def folded(gpu: Columns, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Columns of `work` and `overlaps` of records that are all there.

    Args:
        gpu: Columns of `gpu`, with the number of the recording.
        names: Names by their number in the column `name`.
    """
    found: dict[str, Parts] = {"work": [], "overlaps": []}
    first = 0
    for number in np.unique(gpu["recording"]).tolist():
        fold = Fold(first)
        fold.names.update(enumerate(names))
        mine = gpu["recording"] == number
        fold.add({name: gpu[name][mine] for name in GPU_COLUMNS})
        for kind, parts in zip(found, fold.finish(), strict=True):
            for part in parts:
                count = len(part["pid"])
                found[kind].append({**part, "recording": np.full(count, number, dtype=np.int64)})
        first = fold.next_id
    none = np.empty(0, dtype=np.int64)
    return {
        kind: {
            name: np.concatenate([part[name] for part in parts]) if parts else none
            for name in (*_KINDS[kind], "recording")
        }
        for kind, parts in found.items()
    }
