"""What our messages say, read back for comparison with what others counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from profilemate import schema
from profilemate.schema import Event

KEY = ("mode", "num_tokens", "num_reqs", "uniform", "has_lora")
Key = tuple[Any, ...]


@dataclass
class Said:
    """What our messages say: ranges in order, and the events of the batches."""

    ranges: list[Event] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The values of all events of a kind, whether they came as a range or in a batch."""
        return [e.values for e in (*self.ranges, *self.events) if e.kind == kind]


def said(calls: list[list[str]]) -> Said:
    found, joiner, depth = Said(), schema.Joiner(), 0
    for call, part in calls:
        if call == "pop":
            depth -= 1
            continue
        text = joiner.feed(0, part)
        message = None if text is None else schema.decode(text)
        if message is None:
            continue
        if call == "push":
            depth += 1
            found.ranges += message.events
        else:
            found.events += message.events
    assert depth == 0
    assert joiner.unfinished == 0
    return found


def key(values: dict[str, Any]) -> Key:
    return tuple(values.get(name) for name in KEY)


def launches(found: Said) -> Counter[Key]:
    """Launches by graph: those counted in steps and those with a range of their own.

    Where every launch has its range (`PROFILEMATE_LAUNCHES`), the count says the same twice.
    """
    by_step = {s.get("step"): key(s) for s in found.of("step")}
    ranged: Counter[Key] = Counter(key(r) for r in found.of("graph.replay"))
    counted: Counter[Key] = Counter()
    for end in found.of("step.end"):
        counted[by_step[end.get("step")]] += end["seen"]
    if set(ranged) & set(counted):
        assert ranged == counted
        return counted
    return counted + ranged


def replays(graphs: list[dict[str, Any]]) -> Counter[Key]:
    """Launches by graph, as the stand-in counted them."""
    count: Counter[Key] = Counter()
    for graph in graphs:
        count[key(graph)] += graph["replays"]
    return +count


def check_part(result: dict[str, Any], owners: set[str], graphs: int) -> Said:
    """One part of `graph_parts.py`: captured and launched as the stand-in says."""
    found = said(result["messages"])
    captures = found.of("graph.capture")
    assert {c["owner"] for c in captures} == owners
    assert {c["phase"] for c in captures} == {"real"}
    assert len(captures) == len(result["graphs"]) == graphs
    expected: Counter[Key] = Counter()
    for capture, graph in zip(captures, result["graphs"], strict=True):
        # In order; where vLLM has a forward context at the capture, it names the same graph.
        if graph["mode"] is not None:
            assert key(capture) == key(graph)
        expected[key(capture)] += graph["replays"]
    counted = launches(found)
    assert counted == +expected
    assert counted.total() > 0
    return found
