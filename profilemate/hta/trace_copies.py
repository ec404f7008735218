"""Copies of torch traces in the form that Meta's HTA reads them.

* HTA knows steps only as `ProfilerStep#<n>` and drops GPU work that was launched after the last of
  them: a copy names vLLM's steps that way too, and lets the last reach to the end.
* HTA takes whatever has a `stream` for GPU work, Triton's CPU operations too: these lose theirs.
* HTA 0.6.1 keeps row numbers in the type that the correlation ids fit in, which pandas 3 refuses
  when these are small (`Invalid value for dtype 'int16'`): the ids are shifted.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from profilemate.errors import InputError
from profilemate.parse.readers.kineto.inflate import GZIP
from profilemate.parse.recording.activity import STEP_PREFIXES
from profilemate.schema import PREFIX

SHIFT = 1 << 32
"""Added to every correlation id of a copy."""

ALIAS = "ProfilerStep#"

GPU = ("kernel", "gpu_memcpy", "gpu_memset", "memcpy", "memset")
"""Categories of GPU records, in lower case."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a trace.

    Attributes:
        source: The trace.
        path: The copy.
        rank: Number that HTA shall know it by.
        steps: Steps that HTA sees in it.
        steps_from: What they were in the trace: its own `ProfilerStep#`, `execute_`, `pm1.step`, or
            nothing.
        mended: CPU operations that said a stream.
    """

    source: Path
    path: Path
    rank: int
    steps: int
    steps_from: str
    mended: int


def copies(traces: Sequence[Path], folder: Path) -> list[Copy]:
    """Copy the traces that have GPU records into a folder.

    Ranks are what the traces say, or their order if they do not all say a different one.

    Raises:
        InputError: One cannot be read as a whole, or none has GPU records.
    """
    made: list[Copy] = []
    told: list[int | None] = []
    for trace in traces:
        content = _load(trace)  # one at a time: each is many times its file
        events = content["traceEvents"]
        if not any(str(e.get("cat")).lower() in GPU for e in events):
            continue
        path = folder / f"{len(made)}.json"
        steps, steps_from = _alias(events)
        mended = _adapt(events)
        path.write_text(json.dumps(content), encoding="utf-8")
        made.append(Copy(trace, path, len(made), steps, steps_from, mended))
        told.append(_rank(content))
    if not made:
        raise InputError(
            "There is nothing for HTA to break down",
            path=traces[0],
            why="No trace has GPU records: they are of a front end, or of a machine without GPU.",
            hint="Name the worker's trace, which torch's profiler names after its rank.",
        )
    ranks = {rank for rank in told if rank is not None}
    if len(ranks) == len(made):
        made = [replace(c, rank=r) for c, r in zip(made, told, strict=True) if r is not None]
    return made


def _load(trace: Path) -> dict[str, Any]:
    try:
        with trace.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        with gzip.open(trace) if packed else trace.open("rb") as text:
            content = json.load(text)
    except (OSError, EOFError, ValueError) as e:
        raise InputError(
            "HTA cannot read this trace",
            path=trace,
            why=str(e),
            hint="HTA needs a whole torch profiler trace; one that was cut can be parsed only.",
        ) from e
    if isinstance(content, list):
        content = {"traceEvents": content}
    if not isinstance(content, dict) or not isinstance(content.get("traceEvents"), list):
        raise InputError(
            "HTA cannot read this trace",
            path=trace,
            why="It has no traceEvents.",
            hint="Name a trace that torch's profiler wrote: *.pt.trace.json, or packed.",
        )
    return content


def _rank(content: dict[str, Any]) -> int | None:
    said = content.get("distributedInfo")
    rank = said.get("rank") if isinstance(said, dict) else None
    return rank if isinstance(rank, int) else None


def _alias(events: list[dict[str, Any]]) -> tuple[int, str]:
    """Add a `ProfilerStep#` for each step, unless there are some."""
    on_cpu = ("user_annotation", "cpu_op")
    ranges = [e for e in events if e.get("ph") == "X" and e.get("cat") in on_cpu]
    own = sum(str(e.get("name")).startswith(ALIAS) for e in ranges)
    if own:
        return own, ALIAS
    kinds = {"execute_": STEP_PREFIXES, f"{PREFIX}step": (f"{PREFIX}step ",)}
    found = {
        kind: [e for e in ranges if str(e.get("name")).startswith(prefixes)]
        for kind, prefixes in kinds.items()
    }
    kind = next((kind for kind, steps in found.items() if steps), None)
    if kind is None:
        return 0, "nothing"
    steps = found[kind]
    steps.sort(key=lambda e: float(e["ts"]))
    alias = {"cat": "user_annotation", "args": {}}
    added = [{**e, **alias, "name": f"{ALIAS}{i}"} for i, e in enumerate(steps)]
    ends = [float(e["ts"]) + float(e.get("dur", 0)) for e in events if e.get("ph") == "X"]
    added[-1]["dur"] = max(ends) - float(added[-1]["ts"])
    events += added
    return len(steps), kind


def _adapt(events: list[dict[str, Any]]) -> int:
    """Shift correlation ids and mend CPU operations; return how many of these there were."""
    mended = 0
    for event in events:
        arguments = event.get("args")
        if not isinstance(arguments, dict):
            continue
        if isinstance(arguments.get("correlation"), int):
            arguments["correlation"] += SHIFT
        if event.get("cat") == "cpu_op" and "stream" in arguments:
            del arguments["stream"]
            mended += 1
    return mended
