"""A second opinion on torch profiler traces: `json.load`, Decimal and loops, no code of ours."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

GPU = ("kernel", "gpu_memcpy", "gpu_memset")


def ns(value: Any) -> int:
    exact = Decimal(str(value)) * 1000
    assert exact == int(exact)
    return int(exact)


@dataclass
class Witness:
    """Launches with their GPU records, host steps with their launches, all kernels."""

    launches: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    gpu: list[dict[str, Any]] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    by_launch: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def kernels(self) -> list[dict[str, Any]]:
        return [e for e in self.gpu if e["cat"] == "kernel"]

    def in_step(self, step: dict[str, Any]) -> list[dict[str, Any]]:
        begin, end = ns(step["ts"]), ns(step["ts"]) + ns(step["dur"])
        return [
            launch
            for launch in self.launches
            if (launch["pid"], launch["tid"]) == (step["pid"], step["tid"])
            and begin <= ns(launch["ts"]) <= end
        ]

    def started_in(self, step: dict[str, Any]) -> list[tuple[int, int]]:
        """All GPU work that the step's thread started until the next one: begin and end."""
        begin, thread = ns(step["ts"]), (step["pid"], step["tid"])
        begins = [ns(s["ts"]) for s in self.steps if (s["pid"], s["tid"]) == thread]
        end = min((ts for ts in begins if ts > begin), default=1 << 62) - 1
        found = []
        for record in self.gpu:
            call = self.calls.get(record["args"].get("correlation"))
            if call is None or (call["pid"], call["tid"]) != (step["pid"], step["tid"]):
                continue
            if begin <= ns(call["ts"]) <= end:
                found.append((ns(record["ts"]), stop(record)))
        return sorted(found)

    def span(self, launches: list[dict[str, Any]]) -> int:
        records = [r for launch in launches for r in self.records(launch)]
        return max(stop(r) for r in records) - min(ns(r["ts"]) for r in records)

    def busy(self, launches: list[dict[str, Any]]) -> int:
        return union(sorted((ns(r["ts"]), stop(r)) for x in launches for r in self.records(x)))

    def records(self, launch: dict[str, Any]) -> list[dict[str, Any]]:
        return self.by_launch[launch["args"]["correlation"]]


def union(found: list[tuple[int, int]]) -> int:
    total, reached = 0, found[0][0]
    for begin, end in found:
        total += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def stop(event: dict[str, Any]) -> int:
    return ns(event["ts"]) + ns(event["dur"])


def look(path: Path) -> Witness:
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.suffix == ".gz" else raw
    events = json.loads(text, parse_float=Decimal)["traceEvents"]
    found = Witness()
    for event in events:
        category = event.get("cat", "")
        if category in ("cuda_runtime", "cuda_driver"):
            found.calls[event["args"].get("correlation")] = event
            if "GraphLaunch" in event["name"]:
                found.launches.append(event)
        elif category in GPU:
            found.gpu.append(event)
        elif category == "user_annotation" and event["name"].startswith("execute_"):
            found.steps.append(event)
    correlations = {launch["args"]["correlation"] for launch in found.launches}
    assert len(correlations) == len(found.launches)
    for record in found.gpu:
        if record["args"].get("correlation") in correlations:
            found.by_launch[record["args"]["correlation"]].append(record)
    return found
