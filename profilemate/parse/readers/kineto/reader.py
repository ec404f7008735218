"""Traces of the torch profiler: Kineto's Chrome JSON, plain or gzipped, of every age.

Seen in real files: `ts` in us as an integer (2022), with three decimals, absolute (early 2024) or
since `baseTimeNanoseconds` (later); kernels long before their launch in the file; HIP names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from profilemate import schema
from profilemate.errors import InputError, ToolError
from profilemate.parse.columns.arrays import Ints
from profilemate.parse.readers.base import OpenOptions
from profilemate.parse.readers.kineto import native, parts
from profilemate.parse.readers.kineto.event_stream import DISTRIBUTED
from profilemate.parse.readers.kineto.found import integer, label_of, nanoseconds
from profilemate.parse.readers.kineto.inflate import ZSTD, beginning, unpacked
from profilemate.parse.readers.kineto.reading import TORCH, VIZTRACER, Reading
from profilemate.parse.recording.activity import ActivitySink
from profilemate.parse.recording.contract import Marker, Recording, Silence, SourceInfo, SourceKind
from profilemate.parse.recording.places import place_in_name
from profilemate.parse.recording.worker_processes import Share
from profilemate.schema.live import SIDECAR, SIDECAR_END

__all__ = ["KinetoJsonReader", "nanoseconds"]

_PEEK = 1 << 16
_MANY_DECODED = 200_000  # events: from here on it takes seconds
_EVENTS = "traceEvents"


class _KinetoRecording:
    def __init__(self, path: Path, info: SourceInfo, options: OpenOptions) -> None:
        self._path, self._info, self._progress = path, info, options.progress
        share = options.share or Share.whole()
        self._processes_at_once = 1 if options.streamed else share.processes
        self._reading = Reading()

    @property
    def exact(self) -> int:
        """Events that were decoded one by one, because no template fitted them."""
        return self._reading.exact

    @property
    def info(self) -> SourceInfo:
        return self._info

    def markers(self) -> Iterator[Marker]:
        """Our messages; everything else that is wanted is put aside on the way."""
        cuts = parts.cuts(self._path, self._processes_at_once)
        result = parts.read_parts(self._path, cuts, self._told) if cuts else None
        if result is not None:
            self._reading, markers = result
            yield from markers
        else:
            with unpacked(self._path) as text:
                yield from self._reading.run(text, self._told)
        self._finish(self._reading)

    def _told(self, done: int) -> None:
        self._progress(f"reading {self._path.name}", done, None)

    def _finish(self, reading: Reading) -> None:
        info, header, found = self._info, reading.header, reading.found
        if found.first > found.last:
            raise no_events(self._path, reading)
        wanted = found.calls or len(found.gpu) or found.annotations or found.sidecar or reading.ours
        if not wanted and not any(key in header for key in TORCH):
            raise of_another_program(self._path, reading)
        info.window, info.begin = found.window, found.window[0]
        info.untimed = found.untimed
        base = integer(header.get("baseTimeNanoseconds"), 0)
        # Without it times are those of the wall clock, unless they are too small for that.
        unix = info.begin > 10**18
        info.start_unix_ns = base or (0 if unix else None)
        rank = integer(header.get(DISTRIBUTED), -1)
        info.place = place_in_name(self._path.name) or (None if rank < 0 else (rank,))
        info.labels = {number: text for text, number in found.pids.items()}
        if "vllm_version" in header:
            info.recorder = f"torch profiler of vLLM {header['vllm_version']}"
        if reading.repaired:
            info.notes.append(
                f"{reading.repaired} events had unescaped quotes in their name and were put right."
            )
        lost = reading.broken + found.unusable
        if lost:
            info.notes.append(f"{lost} events could not be read and are left out.")
        if SIDECAR in found.sidecar:
            note_sidecar(info, found.sidecar)
        elif reading.damage is not None:
            info.notes.append(
                f"The file is damaged or was cut short ({reading.damage}): {reading.count} events "
                "were read up to there, whatever came after it is lost."
            )
        slow = native.why_slow() if reading.exact > _MANY_DECODED else None
        if slow is not None:
            info.notes.append(f"Each of its {reading.count} events was decoded: {slow}")
        if not reading.ours:
            info.notes.append(
                Silence(
                    f"No messages of profilemate ({schema.PREFIX}*) in this recording: what no "
                    "recorder knows by itself, descriptors and the KV cache, is missing."
                )
            )

    def annotations(self) -> Iterator[Marker]:
        """The engine's own ranges."""
        return iter(self._reading.found.annotations)

    def activity(self, sink: ActivitySink) -> None:
        """What was put aside."""
        found = self._reading.found
        if found.calls or len(found.gpu):
            sink.calls(found.calls)
        called = {}
        if len(found.callers) > 1:
            called = {name: found.launches.column(name) for name in ("pid", "correlation")}
        for batch in found.launches.batches():
            sink.launches(batch)
        for batch in found.starts.batches():
            sink.starts(batch)
        sink.folded(found.gpu, list(found.names), partial(self._processes, called))
        if len(found.callers) > max(1, len(found.caller_of_label)):
            self._info.notes.append(
                f"API calls of {len(found.callers)} processes in one file: GPU work belongs to a "
                "graph launch only where its correlation id is that of a single one."
            )
        sink.names({number: name for name, number in found.names.items()})

    def _processes(self, launches: Mapping[str, Ints], correlation: Ints) -> Ints:
        """The process of each GPU record, which Kineto files under its device instead.

        A trace is of one process. In a file that was merged from several, a record belongs to the
        process with its label, or else with a launch of its correlation id, if there is but one.
        """
        found = self._reading.found
        callers = found.callers
        if len(callers) <= 1:
            return np.full(len(correlation), next(iter(callers), -1), dtype=np.int64)
        processes = np.full(len(correlation), -1, dtype=np.int64)
        ids, first, count = np.unique(
            launches["correlation"], return_index=True, return_counts=True
        )
        if len(ids):
            at = np.minimum(np.searchsorted(ids, correlation), len(ids) - 1)
            known = (ids[at] == correlation) & (count[at] == 1) & (correlation != 0)
            processes[known] = launches["pid"][first[at]][known]
        for label, caller in found.caller_of_label.items():
            processes[label_of(correlation) == label] = caller
        return processes


def note_sidecar(info: SourceInfo, told: Mapping[str, Mapping[str, Any]]) -> None:
    """What a file of our own says of itself: its first event, and its last if it has one."""
    info.kind, info.recorder = SourceKind.SIDECAR, SourceKind.SIDECAR.value
    facts = told[SIDECAR].get("args", {})
    if 0 < integer(facts.get("run_unix_ns"), 0) < info.begin:
        info.begin = integer(facts["run_unix_ns"], 0)  # events begin before their message
    who = f"{facts.get('role', 'process')} {told[SIDECAR].get('pid')}"
    last = told.get(SIDECAR_END, {}).get("args", {})
    if SIDECAR_END not in told:
        info.notes.append(
            f"{info.path.name} has no end: {who} was killed or still runs, and what it had not "
            "written by then (at most a fifth of a second) is missing; or it could write no more "
            "(a full disk), and everything after that is."
        )
    elif "stopped" in last:
        after = (integer(last.get("unix_ns"), 0) - info.begin) / 1e9
        info.notes.append(
            f"{who} could write no more after {after:.1f} s ({last['stopped']}): everything that "
            f"it did later is missing, however long it ran."
        )
    if facts.get("dropped_segments"):
        info.notes.append(
            f"{who} wrote more than PROFILEMATE_MAX_MB allows: the first "
            f"{facts['dropped_segments']} files of it ({facts['dropped_bytes']} bytes) were "
            f"removed, so its record is missing up to the beginning of {info.path.name}."
        )


def no_events(path: Path, reading: Reading) -> InputError:
    """What to say of a trace that holds nothing."""
    why = (
        f"It was cut short: {reading.damage}." if reading.damage else "Its list of events is empty."
    )
    if reading.count:
        why = f"None of its {reading.count} events says what happened when."
    return InputError(
        "The torch profiler trace holds no events",
        path=path,
        why=why,
        hint="Record again, and let the profiler stop before the process ends.",
    )


def of_another_program(path: Path, reading: Reading) -> InputError:
    """What to say of a Chrome trace that holds nothing for us, and that torch did not write."""
    by = "VizTracer" if VIZTRACER in reading.header else "another program"
    return InputError(
        f"This is a Chrome trace of {by}, not of torch's profiler",
        path=path,
        why=f"None of its {reading.count} events is a CUDA or HIP call, a GPU record, a range of "
        "vLLM's or a message of profilemate.",
        hint="Perfetto opens this one as it is. Record vLLM:",
        command="profilemate run -- vllm serve MODEL",
    )


class KinetoJsonReader:
    """Reads `*.pt.trace.json`, `.json.gz` and `.json.zst`, and what other tools made of them."""

    name = SourceKind.TORCH
    suffixes = (
        ".pt.trace.json",
        ".pt.trace.json.gz",
        ".pt.trace.json.zst",
        ".json",
        ".json.gz",
        ".json.zst",
    )

    def sniff(self, path: Path) -> bool:
        """Whether it begins like a Chrome trace."""
        if not path.is_file():
            return False
        try:
            head = beginning(path, _PEEK)
        except ToolError:
            return path.name.endswith(".json.zst")  # `open` says what is missing
        head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if head.startswith(b"["):
            return b'"ph"' in head and head[1:].lstrip().startswith(b"{")
        keys = (f'"{key}"'.encode() for key in (_EVENTS, *TORCH))
        return head.startswith(b"{") and any(key in head for key in keys)

    def open(self, path: Path, options: OpenOptions) -> Recording:
        """Open a trace; it is read by `markers`.

        Raises:
            ToolError: It is packed with zstd, and nothing is installed that unpacks it.
        """
        beginning(path, len(ZSTD))
        info = SourceInfo(path, self.name, path.stat().st_size, recorder="torch profiler (Kineto)")
        return _KinetoRecording(path, info, options)
