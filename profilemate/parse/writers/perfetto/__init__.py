"""Perfetto's own format: a `.pftrace` for ui.perfetto.dev, written packet by packet.

A JSON trace loses slices that cross on one track, and browsers give up on large ones. This is the
protobuf format with explicit tracks, names said once, and typed arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from profilemate.errors import ToolError, missing_extra
from profilemate.parse.timeline.tracks import Batch, Flows, Track
from profilemate.parse.writers.perfetto.arguments import Column, spelled
from profilemate.parse.writers.perfetto.interning import Interner

SUFFIX = ".pftrace"
CHUNK = 1 << 11
"""Events that are spelled together: what is held in memory at a time."""

BROWSER_BYTES = 250_000_000
"""From this size on a browser may not open a file.

Perfetto's documentation ("Visualising large traces") says that browsers typically give a site 2 GB,
and that a trace takes 2 to 4 times its size in memory. Ours, full of arguments, take more: 230 MB
of `scripts/bench/bench_perfetto.py` took 1.7 GB of Chromium's (UI v52).
"""

_SEQUENCE = 1
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4  # perfetto.protos.TrackEvent.Type
_NEEDS_STATE = 2  # perfetto.protos.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
_BOOTTIME, _REALTIME = 6, 1  # numbers of clocks in perfetto.protos.BuiltinClock


@dataclass(slots=True)
class Count:
    """What was taken for a track, and what stands in the file; lanes of a track are one."""

    slices_in: int = 0
    slices_out: int = 0
    instants_in: int = 0
    instants_out: int = 0
    samples_in: int = 0
    samples_out: int = 0
    lanes: int = 0

    def as_dict(self) -> dict[str, int]:
        """Every figure by its name."""
        return asdict(self)

    def lost(self) -> int:
        """Events that were taken and not written: 0, or there is a mistake in here."""
        taken = self.slices_in + self.instants_in + self.samples_in
        return taken - self.slices_out - self.instants_out - self.samples_out


@dataclass(slots=True)
class Written:
    """A file that was written.

    Attributes:
        path: The file.
        size: Bytes.
        packets: Packets in it.
        tracks: What went onto each track, by its name after those of its groups.
    """

    path: Path
    size: int
    packets: int
    tracks: dict[str, Count] = field(default_factory=dict)

    @property
    def slices(self) -> int:
        """All slices in the file."""
        return sum(count.slices_out for count in self.tracks.values())

    @property
    def events(self) -> int:
        """All slices, instants and samples in the file."""
        counts = self.tracks.values()
        return self.slices + sum(c.instants_out + c.samples_out for c in counts)


class Perfetto:
    """Writes one `.pftrace`; memory does not grow with the number of events."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self._builder = builder()
        self._trace = self._builder.TraceProtoBuilder()
        self._interner = Interner()
        self._described: set[int] = set()
        self._open: dict[int, tuple[list[int], Count]] = {}  # ends of open slices, by track
        self._counts: dict[str, Count] = {}
        self._packets = self._waiting = 0
        self._size = self._shift = 0

    def write(
        self, batches: Iterable[Batch], start_unix_ns: int | None = None, shift: int = 0
    ) -> Written:
        """Write every batch.

        Args:
            batches: Events, for each track in order of time.
            start_unix_ns: Wall clock of ts 0, None where nobody knows.
            shift: Added to every time, ns: the format has no negative ones.

        Raises:
            OSError: The file cannot be written.
        """
        self._shift = shift
        self._clock(start_unix_ns)
        for batch in batches:
            self._describe(batch.track)
            count = self._counts.setdefault(" / ".join(batch.track.path), Count())
            count.lanes = max(count.lanes, batch.track.lane + 1)
            rows = batch.rows
            for begin in range(0, len(rows), CHUNK):
                self._chunk(batch, rows[begin : begin + CHUNK], count)
        for track, (ends, count) in self._open.items():
            while ends:
                self._end(track, ends.pop(), count)
        self._flush()
        assert not any(c.lost() for c in self._counts.values()), self._counts
        return Written(self._path, self._size, self._packets, self._counts)

    # ------------------------------------------------------------------ packets

    def _packet(self) -> Any:
        if self._waiting >= CHUNK:
            self._flush()
        self._waiting += 1
        packet = self._trace.add_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        return packet

    def _event(self, ts: int, kind: int, track: int) -> Any:
        packet = self._packet()
        packet.timestamp = ts + self._shift
        packet.sequence_flags = _NEEDS_STATE
        event = packet.track_event
        event.type = kind
        event.track_uuid = track
        return event

    def _flush(self) -> None:
        """Messages one after the other are one message: that is how a trace is streamed."""
        data = self._trace.serialize()
        self._file.write(data)
        self._size += len(data)
        self._packets += self._waiting
        self._waiting = 0
        self._trace = self._builder.TraceProtoBuilder()

    def _clock(self, start_unix_ns: int | None) -> None:
        packet = self._packet()
        packet.timestamp = self._shift
        times = {_BOOTTIME: self._shift} | (
            {} if start_unix_ns is None else {_REALTIME: start_unix_ns}
        )
        for clock, at in times.items():
            packet.clock_snapshot.clocks.add(clock_id=clock, timestamp=at)

    def _describe(self, track: Track) -> None:
        """Say what a track is, after its groups."""
        if track.number in self._described:
            return
        self._described.add(track.number)
        if track.parent is not None:
            self._describe(track.parent)
        said = self._packet().track_descriptor
        said.uuid = track.number
        said.name = track.name
        if track.parent is not None:
            said.parent_uuid = track.parent.number
        if track.about:
            said.description = track.about
        said.sibling_order_rank = track.rank
        if track.kind == "group":
            said.child_ordering = said.EXPLICIT
        elif track.kind == "counter":
            said.counter.unit_name = track.unit
            if track.share:
                said.counter.y_axis_share_key = track.share

    # ------------------------------------------------------------------ events

    def _chunk(self, batch: Batch, rows: Any, count: Count) -> None:
        if batch.values is not None:
            self._samples(batch, rows, count)
            return
        names, categories, args = self._words(batch, rows)
        flows = _flows(batch.flows, rows)
        ts, track = batch.ts[rows].tolist(), batch.track.number
        ends = [] if batch.end is None else batch.end[rows].tolist()
        still_open, _ = self._open.setdefault(track, ([], count))
        for i, begin in enumerate(ts):
            while still_open and still_open[-1] <= begin:
                self._end(track, still_open.pop(), count)
            event = self._event(begin, _BEGIN if ends else _INSTANT, track)
            if ends:
                still_open.append(ends[i])
            event.name_iid = names[i]
            event.category_iids.append(categories[i])
            if flows and flows[i]:
                event.flow_ids.extend(flows[i])
            annotations = event.debug_annotations
            for number, kind, values in args:
                value = values[i]
                if value is not None:
                    annotations.add(**{"name_iid": number, kind: value})
        if ends:
            count.slices_in += len(ts)
        else:
            count.instants_in += len(ts)
            count.instants_out += len(ts)

    def _words(self, batch: Batch, rows: Any) -> tuple[list[int], list[int], list[Column]]:
        """Names, categories and arguments of some events; what is new of them is said first."""
        assert batch.names is not None
        assert batch.categories is not None
        interner = self._interner
        interner.make_room()
        names = interner.chosen("name", batch.names.texts, batch.names.codes[rows])
        categories = interner.chosen(
            "category", batch.categories.texts, batch.categories.codes[rows]
        )
        args = list(spelled(batch.args, rows, interner))
        if interner.has_news:
            interner.tell(self._packet())
        return names, categories, args

    def _end(self, track: int, ts: int, count: Count) -> None:
        self._event(ts, _END, track)
        count.slices_out += 1

    def _samples(self, batch: Batch, rows: Any, count: Count) -> None:
        assert batch.values is not None
        values, track = batch.values[rows], batch.track.number
        whole = values.dtype.kind in "iu" or bool((values == np.floor(values)).all())
        field = "counter_value" if whole else "double_counter_value"
        said = values.astype(np.int64).tolist() if whole else values.tolist()
        for ts, value in zip(batch.ts[rows].tolist(), said, strict=True):
            setattr(self._event(ts, _COUNTER, track), field, value)
            count.samples_out += 1
        count.samples_in += len(rows)


def _flows(flows: Flows | None, rows: Any) -> list[list[int]]:
    """Flow ids of some events; empty where the track has none."""
    if flows is None or not len(flows.ids):
        return []
    taken = flows.take(rows)
    ids, start = taken.ids.tolist(), taken.start.tolist()
    return [ids[a:b] for a, b in pairwise(start)]


def builder() -> Any:
    """The module that builds packets.

    Raises:
        ToolError: The package is not installed.
    """
    try:
        from perfetto.trace_builder import proto_builder
    except ImportError as e:
        raise ToolError(
            "A timeline cannot be written",
            why="The package perfetto is not installed here.",
            hint="Install what it needs:",
            command=missing_extra("perfetto"),
        ) from e
    return proto_builder
