"""Reads a `.pftrace` back with Perfetto's own protos: tracks, slices rebuilt from begin and end,
instants, samples, flows. Shares nothing with the writer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

Args = dict[str, Any]


@dataclass
class Slice:
    """A slice, or an instant (then `end` is `ts`)."""

    name: str
    category: str
    ts: int
    end: int
    depth: int
    args: Args
    flows: list[int]


@dataclass
class Line:
    """What one track_uuid holds."""

    path: str
    description: str = ""
    unit: str = ""
    slices: list[Slice] = field(default_factory=list)
    instants: list[Slice] = field(default_factory=list)
    samples: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class File:
    """A whole file; lanes of a track are lines of the same path."""

    lines: list[Line]
    packets: int
    clocks: dict[int, int]

    def at(self, path: str) -> list[Line]:
        """The lanes of a track, by the end of its path."""
        return [line for line in self.lines if line.path.endswith(path)]

    def slices(self, path: str) -> list[Slice]:
        """All slices of a track, in order of time."""
        return sorted((s for line in self.at(path) for s in line.slices), key=lambda s: s.ts)

    def instants(self, path: str) -> list[Slice]:
        """All instants of a track."""
        return [s for line in self.at(path) for s in line.instants]

    def samples(self, path: str) -> list[tuple[int, float]]:
        """All samples of a counter."""
        return [s for line in self.at(path) for s in line.samples]

    def paths(self) -> list[str]:
        """Names of everything that holds events, each once, in order of the file."""
        full = (line for line in self.lines if line.slices or line.instants or line.samples)
        return list(dict.fromkeys(line.path for line in full))


class _Reader:
    def __init__(self) -> None:
        self.interned: dict[str, dict[int, Any]] = defaultdict(dict)
        self.tracks: dict[int, Any] = {}
        self.lines: dict[int, Line] = {}
        self.open: dict[int, list[Slice]] = defaultdict(list)
        self.last: dict[int, int] = {}
        self.clocks: dict[int, int] = {}

    def take(self, packet: Any) -> None:
        if packet.sequence_flags & packet.SEQ_INCREMENTAL_STATE_CLEARED:
            self.interned.clear()
        for kind in ("event_names", "event_categories", "debug_annotation_names"):
            for entry in getattr(packet.interned_data, kind):
                self.interned[kind][entry.iid] = entry.name
        for entry in packet.interned_data.debug_annotation_string_values:
            self.interned["text"][entry.iid] = entry.str.decode()
        if packet.HasField("track_descriptor"):
            self.describe(packet.track_descriptor)
        for clock in packet.clock_snapshot.clocks:
            self.clocks[clock.clock_id] = clock.timestamp
        if packet.HasField("track_event"):
            assert packet.sequence_flags & packet.SEQ_NEEDS_INCREMENTAL_STATE
            self.event(packet.timestamp, packet.track_event)

    def describe(self, said: Any) -> None:
        assert said.uuid not in self.tracks, "a track is described once"
        self.tracks[said.uuid] = said
        path, parent = [said.name], said.parent_uuid
        while parent:
            path.append(self.tracks[parent].name)
            parent = self.tracks[parent].parent_uuid
        self.lines[said.uuid] = Line(
            " / ".join(reversed(path)), said.description, said.counter.unit_name
        )

    def event(self, ts: int, event: Any) -> None:
        line, stack = self.lines[event.track_uuid], self.open[event.track_uuid]
        if event.type != TrackEvent.TYPE_COUNTER:
            assert ts >= self.last.get(event.track_uuid, 0), "events of a track are in order"
            self.last[event.track_uuid] = ts
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            stack.append(self.slice(ts, event, len(stack)))
            line.slices.append(stack[-1])
        elif event.type == TrackEvent.TYPE_SLICE_END:
            stack.pop().end = ts
        elif event.type == TrackEvent.TYPE_INSTANT:
            line.instants.append(self.slice(ts, event, len(stack)))
        else:
            assert event.type == TrackEvent.TYPE_COUNTER
            assert self.tracks[event.track_uuid].HasField("counter")
            which = event.WhichOneof("counter_value_field")
            line.samples.append((ts, getattr(event, which)))

    def slice(self, ts: int, event: Any, depth: int) -> Slice:
        args = {
            self.interned["debug_annotation_names"][a.name_iid]: self.value(a)
            for a in event.debug_annotations
        }
        name = self.interned["event_names"][event.name_iid]
        (category,) = (self.interned["event_categories"][c] for c in event.category_iids)
        return Slice(name, category, ts, ts, depth, args, list(event.flow_ids))

    def value(self, annotation: Any) -> Any:
        for which in ("bool_value", "int_value", "double_value", "string_value"):
            if annotation.HasField(which):
                return getattr(annotation, which)
        return self.interned["text"][annotation.string_value_iid]


def read(path: Path) -> File:
    """Read a file whole."""
    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    reader = _Reader()
    for packet in trace.packet:
        reader.take(packet)
    assert not any(reader.open.values()), "every slice has an end"
    return File(list(reader.lines.values()), len(trace.packet), reader.clocks)
