"""Copies of torch traces in the form that Meta's HTA reads them.

* HTA knows steps only as `ProfilerStep#<n>` and drops GPU work that was launched after the last of
  them: a copy names vLLM's steps that way too, and lets the last reach to the end.
* HTA takes whatever has a `stream` for GPU work, Triton's CPU operations too: these lose theirs.
* HTA 0.6.1 keeps row numbers in the type that the correlation ids fit in, which pandas 3 refuses
  when these are small (`Invalid value for dtype 'int16'`): the ids are shifted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profilemate.errors import InputError
from profilemate.parse.activity import STEP_PREFIXES
from profilemate.parse.readers.kineto_json import unpacked
from profilemate.schema import PREFIX

SHIFT = 1 << 32
"""Added to every correlation id of a copy."""

ALIAS = "ProfilerStep#"


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
    """Copy traces into a folder; ranks are what the traces say, or their order if they do not.

    Raises:
        InputError: One cannot be read as a whole.
    """
    loaded = [(trace, _load(trace)) for trace in traces]
    told = [_rank(content) for _, content in loaded]
    ranks = [r for r in told if r is not None]
    if len(set(ranks)) < len(traces):
        ranks = list(range(len(traces)))
    made: list[Copy] = []
    for rank, (trace, content) in zip(ranks, loaded, strict=True):
        path = folder / f"rank{rank}.json"
        steps, steps_from = _alias(content["traceEvents"])
        mended = _adapt(content["traceEvents"])
        path.write_text(json.dumps(content), encoding="utf-8")
        made.append(Copy(trace, path, rank, steps, steps_from, mended))
    return made


def _load(trace: Path) -> dict[str, Any]:
    try:
        with unpacked(trace) as file:
            content = json.load(file)
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
        raise InputError("HTA cannot read this trace", path=trace, why="It has no traceEvents.")
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
