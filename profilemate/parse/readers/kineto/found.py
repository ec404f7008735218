"""What a trace holds for us: which events matter, and the columns they become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import numpy as np

from profilemate import schema
from profilemate.parse.columns.arrays import Ints, Matrix
from profilemate.parse.columns.int_table import IntTable
from profilemate.parse.gpu.fold_any_order import AnyOrder
from profilemate.parse.readers.kineto.template import MICROSECONDS, WHOLE, Path, Template, learn
from profilemate.parse.recording.activity import (
    ANNOTATION_PREFIXES,
    KERNEL,
    LAUNCH_COLUMNS,
    MEMCPY,
    MEMSET,
    START_COLUMNS,
    is_graph_launch,
)
from profilemate.parse.recording.contract import Marker
from profilemate.parse.recording.places import labelled
from profilemate.schema.live import SIDECAR, SIDECAR_END

LIMIT = 1 << 62

_LABEL_BITS = 40  # from here on a correlation id holds the label of its process
_NAMED_APART = 1 << 32  # numbers of processes from here on are ours: no system gives one

# Categories of GPU records, in lower case; the short ones are those of 2021.
_GPU = {
    "kernel": KERNEL,
    "gpu_memcpy": MEMCPY,
    "memcpy": MEMCPY,
    "gpu_memset": MEMSET,
    "memset": MEMSET,
}
_API_ENDS = ("runtime", "driver")
API_NAMES = ("cuda", "cu", "hip")
RANGES = (schema.PREFIX, *ANNOTATION_PREFIXES)

GPU, CALL, RANGE, BARE, TIMED, NOTHING = range(6)
"""Groups of events: GPU records, API calls, ranges that may be wanted, events without a category
(their name tells), those that only say that time went by, and those that say nothing."""


def nanoseconds(value: object) -> int | None:
    """Microseconds as JSON spells them (an integer, or the text of any number) to whole ns.

    The digits are taken as they stand; what is finer than a ns is rounded to the nearest. None for
    what is no number, or one that is not finite or needs more than 62 bits.
    """
    if type(value) is int:
        ns = value * 1000
    elif isinstance(value, str):
        head, _, tail = value.partition(".")
        if len(tail) == 3 and tail.isdecimal() and head.isdecimal() and value.isascii():
            ns = int(head + tail)
        else:
            try:
                exact = Decimal(value)
                ns = int((exact * 1000).to_integral_value()) if abs(exact) < LIMIT else LIMIT
            except (InvalidOperation, ValueError):
                return None
    else:
        return None
    return ns if -LIMIT < ns < LIMIT else None


def integer(value: object, default: int) -> int:
    """An integer, or its digits in a string."""
    if type(value) is not int:
        if not isinstance(value, str) or not value.removeprefix("-").isdecimal() or len(value) > 19:
            return default
        value = int(value)
    return value if -LIMIT < value < LIMIT else default


# ------------------------------------------------------------------ which events matter

Source = Path | int
"""Where a column comes from: a number of the event, or the same value for all of its kind."""


@dataclass(frozen=True, slots=True)
class Group:
    """What becomes of the events of one template."""

    kind: int
    gpu: int
    columns: Mapping[str, Source]
    instant: bool


_TIMES: tuple[Path, ...] = (("ts",), ("dur",))
_COLUMNS: Mapping[int, Mapping[str, tuple[tuple[Path, ...], int]]] = {
    GPU: {
        "device": ((("args", "device"), ("pid",)), -1),
        "stream": ((("args", "stream"), ("tid",)), -1),
        "correlation": ((("args", "correlation"),), 0),
        "graph": ((("args", "graph id"),), 0),
        "node": ((("args", "graph node id"),), 0),
    },
    CALL: {
        "pid": ((("pid",),), -1),
        "tid": ((("tid",),), -1),
        "correlation": ((("args", "correlation"),), 0),
    },
    RANGE: {"pid": ((("pid",),), -1), "tid": ((("tid",),), -1)},
    TIMED: {},
    NOTHING: {},
}
_COLUMNS = {**_COLUMNS, BARE: _COLUMNS[CALL]}


def kind_of(event: Mapping[str, Any]) -> tuple[int, int]:
    """Group of an event, and the kind of GPU record; its name apart."""
    if event.get("ph") not in ("X", "i", "I"):
        return NOTHING, -1
    category = event.get("cat")
    category = category.lower() if isinstance(category, str) else ""
    if category in _GPU:
        return GPU, _GPU[category]
    if category.endswith(_API_ENDS):
        return CALL, -1
    if not category:
        return BARE, -1
    return (TIMED if category.startswith("gpu_") else RANGE), -1


def template_of(raw: bytes, event: Mapping[str, Any]) -> Template | None:
    """The template of an event; None for one that others like it may differ from in what matters.

    Args:
        raw: Its text.
        event: The same, decoded.
    """
    found = _group_of(event)
    if found is None:
        return None
    group, wanted = found
    decisive: set[Path] = {("ph",), ("cat",)}
    if group.kind != NOTHING:
        decisive.update(_TIMES, *(paths for paths, _ in _COLUMNS[group.kind].values()))
    return learn(raw, wanted, decisive, group)


def _group_of(event: Mapping[str, Any]) -> tuple[Group, dict[Path, int]] | None:
    """What becomes of events like this one, and the numbers wanted of them."""
    kind, gpu = kind_of(event)
    if kind == NOTHING and event.get("cat") == "profilemate":
        return None  # what a sidecar says of itself matters
    if kind != NOTHING and labelled(event.get("pid")):
        return None  # which process it is of is not a number
    wanted: dict[Path, int] = {}
    if kind != NOTHING:
        if not isinstance(event.get("name"), str) or nanoseconds(event.get("ts")) is None:
            return None
        wanted[("ts",)] = MICROSECONDS
        if "dur" in event:
            wanted[("dur",)] = MICROSECONDS
    columns: dict[str, Source] = {}
    for name, (paths, default) in _COLUMNS[kind].items():
        source = columns[name] = _source(event, paths, default)
        if not isinstance(source, int):
            wanted[source] = WHOLE
    return Group(kind, gpu, columns, "dur" not in event), wanted


def _source(event: Mapping[str, Any], paths: tuple[Path, ...], default: int) -> Source:
    for path in paths:
        value: Any = event
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if type(value) is int or (isinstance(value, str) and nanoseconds(value) is not None):
            return path
    return default


# ------------------------------------------------------------------ what there was


class Wanted(NamedTuple):
    """An event that matters: its group, its name, and the columns that it fills."""

    kind: int
    name: str
    values: tuple[int, ...] | Marker


class Found:
    """Everything that is wanted of a trace, in the order of the file.

    Attributes:
        first, last: Begin and end of all events that have a time, ns.
        used: The same of those that are wanted; the first is above the last where there are none.
        untimed: GPU records whose times could not be collected, which are left out.
    """

    def __init__(self) -> None:
        self.gpu = AnyOrder()
        self.launches = IntTable(tuple(LAUNCH_COLUMNS))
        self.starts = IntTable(tuple(START_COLUMNS))
        self.annotations: list[Marker] = []
        self.names: dict[str, int] = {}
        self.calls: Counter[str] = Counter()
        self.callers: set[int] = set()
        self.first, self.last = LIMIT, -LIMIT
        self.used = LIMIT, -LIMIT
        self.untimed = 0
        self.unusable = 0
        self.sidecar: dict[str, Mapping[str, Any]] = {}  # what a file of our own says of itself
        self.pids: dict[str, int] = {}  # of a merged file: a number for the text of each process
        self._labels: dict[str, int] = {}  # and one for each label, from 1

    def number(self, name: str) -> int:
        """The number of a name."""
        return self.names.setdefault(name, len(self.names))

    @property
    def caller_of_label(self) -> dict[int, int]:
        """The process with API calls of each label, where there is one."""
        callers: dict[int, list[int]] = {}
        for text, number in self.pids.items():
            label = labelled(text)
            if label is not None and number in self.callers:
                callers.setdefault(self._labels[label[0]], []).append(number)
        return {label: numbers[0] for label, numbers in callers.items() if len(numbers) == 1}

    def _pid(self, event: Mapping[str, Any]) -> int:
        """Number of an event's process, -1 for none."""
        pid = event.get("pid")
        label = labelled(pid)
        if label is None:
            return integer(pid, -1)
        text = str(pid)
        if text not in self.pids:
            free = label[1] not in self.pids.values()
            self.pids[text] = label[1] if free else _NAMED_APART + len(self.pids)
        return self.pids[text]

    def _label(self, event: Mapping[str, Any]) -> int:
        """Number of the label of an event's process, 0 for none."""
        label = labelled(event.get("pid"))
        return 0 if label is None else self._labels.setdefault(label[0], len(self._labels) + 1)

    def merge(self, other: Found) -> None:
        """Take over what was found in the part of the file that comes next."""
        numbers = np.array([self.number(name) for name in other.names], dtype=np.int64)
        self.gpu.merge(other.gpu, numbers)
        other.launches.renumber("name", numbers)
        self.launches.merge(other.launches)
        self.starts.merge(other.starts)
        self.annotations += other.annotations
        self.calls.update(other.calls)
        self.callers |= other.callers
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.use(*other.used)
        self.untimed += other.untimed
        self.unusable += other.unusable
        self.sidecar |= other.sidecar

    @property
    def window(self) -> tuple[int, int]:
        """Begin and end, ns, of what is wanted, or else of all events.

        One that nobody asks for may have any time at all: it must not move all others.
        """
        return self.used if self.used[0] <= self.used[1] else (self.first, self.last)

    def use(self, begin: int, end: int) -> None:
        """Note from when to when something was that is wanted."""
        self.used = min(self.used[0], begin), max(self.used[1], end)

    def use_records(self, records: Matrix) -> None:
        """Take GPU records, with the columns `fold_any_order.NAMES`, but those without times.

        CUPTI says 0 for begin and end of what it could not collect the time of.
        """
        timed = (records[0] != 0) | (records[1] != 0)
        if not timed.all():
            self.untimed += int((~timed).sum())
            records = records[:, timed]
        if records.shape[1]:
            self.use(int(records[0].min()), int(records[1].max()))
            self.gpu.extend(records)

    def use_calls(self, ts: Ints, dur: Ints) -> None:
        """Note when API calls were."""
        if len(ts):
            self.use(int(ts.min()), int((ts + dur).max()))

    # -------------------------------------------------------------- one event

    def wants(self, event: Mapping[str, Any]) -> Wanted | None:
        """What is wanted of an event, None for nothing; its time counts already."""
        kind, gpu = kind_of(event)
        name = event.get("name")
        if kind == NOTHING:
            if name in (SIDECAR, SIDECAR_END):
                self.sidecar[str(name)] = event
            return None
        ts, dur = nanoseconds(event.get("ts")), nanoseconds(event.get("dur", 0))
        if ts is None or dur is None or not isinstance(name, str):
            self.unusable += 1
            return None
        name = _cleaned(name)
        self.first, self.last = min(self.first, ts), max(self.last, ts + dur)
        args = event.get("args")
        get = args.get if isinstance(args, dict) else {}.get
        tid = integer(event.get("tid"), -1)
        if kind == GPU:
            label = labelled(event.get("pid"))
            where = integer(event.get("pid"), -1) if label is None else label[1]
            device, stream = integer(get("device"), where), integer(get("stream"), tid)
            ids = (integer(get(k), 0) for k in ("graph id", "graph node id"))
            correlation = _labelled_id(integer(get("correlation"), 0), self._label(event))
            return Wanted(GPU, name, (ts, ts + dur, device, stream, correlation, *ids, gpu))
        pid = self._pid(event)
        if kind == CALL or (kind == BARE and name.startswith(API_NAMES)):
            correlation = _labelled_id(integer(get("correlation"), 0), self._label(event))
            return Wanted(CALL, name, (ts, dur, pid, tid, correlation))
        if kind != TIMED and name.startswith(RANGES):
            return Wanted(RANGE, name, Marker(ts, dur if "dur" in event else None, pid, tid, name))
        return None

    def take(self, event: Mapping[str, Any]) -> Marker | None:
        """Put an event where it belongs; return it if it is a message of ours."""
        wanted = self.wants(event)
        return None if wanted is None else self.put(wanted)

    def put(self, wanted: Wanted) -> Marker | None:
        """Put what an event is wanted for where it belongs; return a message of ours."""
        kind, name, values = wanted
        if isinstance(values, Marker):
            return self.range(values)
        if kind == GPU:
            number = self.number(name)
            if values[0] == values[1] == 0:
                self.untimed += 1
            else:
                self.use(values[0], values[1])
                self.gpu.add(*values, number)
            return None
        ts, dur, pid, tid, correlation = values
        self.use(ts, ts + dur)
        self.calls[name] += 1
        self.callers.add(pid)
        if is_graph_launch(name):
            self.launches.add(ts, dur, pid, tid, correlation, self.number(name))
        elif correlation:
            self.starts.add(ts, pid, tid, correlation)
        return None

    def range(self, marker: Marker) -> Marker | None:
        """Keep a range of others; return one of ours."""
        self.use(marker.ts, marker.ts + (marker.dur or 0))
        if marker.text.startswith(schema.PREFIX):
            return marker
        self.annotations.append(marker)
        return None


def _labelled_id(correlation: int, label: int) -> int:
    """A correlation id that no process of another label has; 0 for none."""
    return correlation | label << _LABEL_BITS if 0 < correlation < 1 << _LABEL_BITS else correlation


def label_of(correlation: Ints) -> Ints:
    """The labels in correlation ids, 0 where there is none."""
    return correlation >> _LABEL_BITS


def _cleaned(name: str) -> str:
    """A name with the usual sign for bytes that are no UTF-8, which were kept as surrogates."""
    if name.isascii():
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
