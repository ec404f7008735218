"""Traces of the torch profiler: Kineto's Chrome JSON, plain or gzipped, of every age.

Seen in real files: `ts` in us as an integer (2022), with three decimals, absolute (early 2024) or
since `baseTimeNanoseconds` (later); kernels long before their launch in the file; HIP names.
"""

from __future__ import annotations

import gzip
import io
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np

from profilemate import schema
from profilemate.errors import InputError
from profilemate.parse import activity
from profilemate.parse.activity import ActivitySink, Ints, is_graph_launch
from profilemate.parse.progress import Progress
from profilemate.parse.readers.base import OpenOptions
from profilemate.parse.readers.json_events import EventStream
from profilemate.parse.trace import Marker, Recording, SourceInfo
from profilemate.schema.live import SIDECAR, SIDECAR_END

GZIP = b"\x1f\x8b"
_PEEK = 1 << 16
_PROGRESS_EVERY = 1 << 14  # events
_LIMIT = 1 << 62
_KEYS = (b'"traceEvents"', b'"schemaVersion"', b'"deviceProperties"', b'"baseTimeNanoseconds"')

# Categories of GPU records, in lower case; the short ones are those of 2021.
_GPU = {
    "kernel": activity.KERNEL,
    "gpu_memcpy": activity.MEMCPY,
    "memcpy": activity.MEMCPY,
    "gpu_memset": activity.MEMSET,
    "memset": activity.MEMSET,
}
_API_ENDS = ("runtime", "driver")
_API_NAMES = ("cuda", "cu", "hip")


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
                ns = int((exact * 1000).to_integral_value()) if abs(exact) < _LIMIT else _LIMIT
            except (InvalidOperation, ValueError):
                return None
    else:
        return None
    return ns if -_LIMIT < ns < _LIMIT else None


def _integer(value: object, default: int) -> int:
    """An integer, or its digits in a string."""
    if type(value) is not int:
        if not isinstance(value, str) or not value.removeprefix("-").isdecimal() or len(value) > 19:
            return default
        value = int(value)
    return value if -_LIMIT < value < _LIMIT else default


def unpacked(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """A trace's text, whether it is packed or not."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    return gzip.GzipFile(path) if packed else path.open("rb")


class _Columns:
    """Rows of integers, all in one array."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.values = array("q")

    def columns(self) -> dict[str, Ints]:
        rows = np.array(self.values, dtype=np.int64).reshape(-1, len(self.names))
        return {name: rows[:, i] for i, name in enumerate(self.names)}


class _KinetoRecording:
    def __init__(self, path: Path, info: SourceInfo, progress: Progress) -> None:
        self._path, self._info, self._progress = path, info, progress
        self._gpu = _Columns(tuple(n for n in activity.GPU_COLUMNS if n != "pid"))
        self._launches = _Columns(tuple(activity.LAUNCH_COLUMNS))
        self._starts = _Columns(tuple(activity.START_COLUMNS))
        self._annotations: list[Marker] = []
        self._names: dict[str, int] = {}
        self._calls: Counter[str] = Counter()
        self._callers: Counter[int] = Counter()
        self._first, self._last = _LIMIT, -_LIMIT
        self._unusable = 0
        self._sidecar: dict[str, Mapping[str, Any]] = {}

    @property
    def info(self) -> SourceInfo:
        return self._info

    def markers(self) -> Iterator[Marker]:
        """Our messages; everything else that is wanted is put aside on the way."""
        what = f"reading {self._path.name}"
        found = 0
        with unpacked(self._path) as file:
            stream = EventStream(file)
            count = 0
            for count, event in enumerate(stream.events(), 1):
                if count % _PROGRESS_EVERY == 0:
                    self._progress(what, stream.read, None)
                marker = self._take(event)
                if marker is not None:
                    found += 1
                    yield marker
        self._finish(stream, count, found)

    def _take(self, event: Mapping[str, Any]) -> Marker | None:
        """Put an event where it belongs; return it if it is a message of ours."""
        if event.get("ph") not in ("X", "i", "I"):
            if event.get("name") in (SIDECAR, SIDECAR_END):
                self._sidecar[str(event["name"])] = event
            return None
        category, name = event.get("cat"), event.get("name")
        ts, dur = nanoseconds(event.get("ts")), nanoseconds(event.get("dur", 0))
        if ts is None or dur is None or not isinstance(name, str):
            self._unusable += 1
            return None
        self._first, self._last = min(self._first, ts), max(self._last, ts + dur)
        category = category.lower() if isinstance(category, str) else ""
        kind = _GPU.get(category)
        if kind is not None:
            self._take_gpu(event, kind, ts, dur, name)
        elif category.endswith(_API_ENDS) or (not category and name.startswith(_API_NAMES)):
            self._take_call(event, ts, dur, name)
        elif not category.startswith("gpu_"):  # the same ranges once more, as the GPU saw them
            ours = name.startswith(schema.PREFIX)
            if ours or name.startswith(activity.ANNOTATION_PREFIXES):
                pid, tid = _integer(event.get("pid"), -1), _integer(event.get("tid"), -1)
                marker = Marker(ts, dur if "dur" in event else None, pid, tid, name)
                if ours:
                    return marker
                self._annotations.append(marker)
        return None

    def _take_gpu(self, event: Mapping[str, Any], kind: int, ts: int, dur: int, name: str) -> None:
        args = event.get("args")
        get = args.get if isinstance(args, dict) else {}.get
        row = (
            ts,
            ts + dur,
            _integer(get("device"), _integer(event.get("pid"), -1)),
            _integer(get("stream"), _integer(event.get("tid"), -1)),
            _integer(get("correlation"), 0),
            _integer(get("graph id"), 0),
            _integer(get("graph node id"), 0),
            kind,
            self._names.setdefault(name, len(self._names)),
        )
        self._gpu.values.extend(row)

    def _take_call(self, event: Mapping[str, Any], ts: int, dur: int, name: str) -> None:
        pid = _integer(event.get("pid"), -1)
        self._calls[name] += 1
        self._callers[pid] += 1
        args = event.get("args")
        given = args.get("correlation") if isinstance(args, dict) else None
        tid, correlation = _integer(event.get("tid"), -1), _integer(given, 0)
        if is_graph_launch(name):
            number = self._names.setdefault(name, len(self._names))
            self._launches.values.extend((ts, dur, pid, tid, correlation, number))
        elif correlation:
            self._starts.values.extend((ts, pid, tid, correlation))

    def _finish(self, stream: EventStream, count: int, found: int) -> None:
        info, header = self._info, stream.header
        if self._first > self._last:
            raise no_events(self._path, stream, count)
        info.window, info.begin = (self._first, self._last), self._first
        base = _integer(header.get("baseTimeNanoseconds"), 0)
        # Without it times are those of the wall clock, unless they are too small for that.
        unix = self._first > 10**18
        info.start_unix_ns = base or (0 if unix else None)
        if "vllm_version" in header:
            info.recorder = f"torch profiler of vLLM {header['vllm_version']}"
        if stream.repaired:
            info.notes.append(
                f"{stream.repaired} events had unescaped quotes in their name and were put right."
            )
        lost = stream.broken + self._unusable
        if lost:
            info.notes.append(f"{lost} events could not be read and are left out.")
        if SIDECAR in self._sidecar:
            note_sidecar(info, self._sidecar)
        elif stream.damage is not None:
            info.notes.append(
                f"The file is damaged or was cut short ({stream.damage}): {count} events were read "
                "up to there, whatever came after it is lost."
            )
        if not found:
            info.notes.append(
                f"No messages of profilemate ({schema.PREFIX}*) in this recording: what no "
                "recorder knows by itself, descriptors and the KV cache, is missing."
            )

    def annotations(self) -> Iterator[Marker]:
        """The engine's own ranges."""
        return iter(self._annotations)

    def activity(self, sink: ActivitySink) -> None:
        """What was put aside."""
        launches, gpu = self._launches.columns(), self._gpu.columns()
        if self._calls or len(gpu["start"]):
            sink.calls(self._calls)
        sink.launches(launches)
        sink.starts(self._starts.columns())
        sink.gpu({**gpu, "pid": self._processes(launches, gpu["correlation"])})
        sink.names({number: name for name, number in self._names.items()})

    def _processes(self, launches: Mapping[str, Ints], correlation: Ints) -> Ints:
        """The process of each GPU record, which Kineto files under its device instead.

        A trace is of one process. In a file that was merged from several, a record belongs to the
        process with a launch of its correlation id, if there is but one.
        """
        if len(self._callers) <= 1:
            return np.full(len(correlation), next(iter(self._callers), -1), dtype=np.int64)
        processes = np.full(len(correlation), -1, dtype=np.int64)
        ids, first, count = np.unique(
            launches["correlation"], return_index=True, return_counts=True
        )
        if len(ids):
            at = np.minimum(np.searchsorted(ids, correlation), len(ids) - 1)
            known = (ids[at] == correlation) & (count[at] == 1) & (correlation != 0)
            processes[known] = launches["pid"][first[at]][known]
        self._info.notes.append(
            f"API calls of {len(self._callers)} processes in one file: GPU work belongs to a graph "
            "launch only where its correlation id is that of a single one."
        )
        return processes


def note_sidecar(info: SourceInfo, told: Mapping[str, Mapping[str, Any]]) -> None:
    """What a file of our own says of itself: its first event, and its last if it has one."""
    info.recorder = "profilemate sidecar"
    facts = told[SIDECAR].get("args", {})
    if 0 < _integer(facts.get("run_unix_ns"), 0) < info.begin:
        info.begin = _integer(facts["run_unix_ns"], 0)  # events begin before their message
    who = f"{facts.get('role', 'process')} {told[SIDECAR].get('pid')}"
    if SIDECAR_END not in told:
        info.notes.append(
            f"{info.path.name} has no end: {who} was killed or still runs. What it had not "
            "written by then (at most a fifth of a second) is missing."
        )
    if facts.get("dropped_segments"):
        info.notes.append(
            f"{who} wrote more than PROFILEMATE_MAX_MB allows: the first "
            f"{facts['dropped_segments']} files of it ({facts['dropped_bytes']} bytes) were "
            f"removed, so its record is missing up to the beginning of {info.path.name}."
        )


def no_events(path: Path, stream: EventStream, count: int) -> InputError:
    """What to say of a trace that holds nothing."""
    why = f"It was cut short: {stream.damage}." if stream.damage else "Its list of events is empty."
    if count:
        why = f"None of its {count} events says what happened when."
    return InputError(
        "The torch profiler trace holds no events",
        path=path,
        why=why,
        hint="Record again, and let the profiler stop before the process ends.",
    )


class KinetoJsonReader:
    """Reads `*.pt.trace.json` and `*.pt.trace.json.gz`, and what other tools made of them."""

    name = "torch profiler trace"
    suffixes = (".pt.trace.json", ".pt.trace.json.gz", ".json", ".json.gz")

    def sniff(self, path: Path) -> bool:
        """Whether it begins like a Chrome trace."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(_PEEK)
        if head.startswith(GZIP):
            try:
                head = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, _PEEK)
            except zlib.error:
                return False
        head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if head.startswith(b"["):
            return b'"ph"' in head and head[1:].lstrip().startswith(b"{")
        return head.startswith(b"{") and any(key in head for key in _KEYS)

    def open(self, path: Path, options: OpenOptions) -> Recording:
        """Open a trace; it is read by `markers`."""
        info = SourceInfo(path, self.name, path.stat().st_size, recorder="torch profiler (Kineto)")
        return _KinetoRecording(path, info, options.progress)
