"""Which process is which: a trace of many processes, cut into one trace per rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from profilemate.parse.trace.event_columns import FRAME_NAMES
from profilemate.parse.trace.trace import Trace

_ENGINE_FRAMES = ("kv.lookup", "kv.alloc_failed", "sched.step", "preempt", "request")
_WORKER_FRAMES = ("step", "graph.capture", "graph.replay")


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """Place of a process in the run. `extra` tells apart what claims the same place.

    vLLM's ranks: data-parallel, pipeline-parallel, tensor-parallel. An engine stands at the first
    worker of its data-parallel rank.
    """

    dp: int
    pp: int
    tp: int
    extra: int = 0

    @property
    def folder(self) -> str:
        """Name of its folder under `ranks/`."""
        name = f"dp{self.dp}_pp{self.pp}_tp{self.tp}"
        return f"{name}_{self.extra}" if self.extra else name


@dataclass(slots=True)
class Process:
    """One process of the recording, as far as it said who it is."""

    pid: int
    role: str
    dp: int | None
    pp: int | None
    tp: int | None
    host: str | None
    events: int
    first: int
    session: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class RankTrace:
    """The events of one rank: its worker's, and its engine's if it is the engine's first worker.

    The trace of another worker has its engine's as `engine`.
    """

    rank: Rank
    processes: list[Process]
    trace: Trace


def processes_of(trace: Trace) -> list[Process]:
    """Every process with events of ours, in order of its first event."""
    counts = [f.groupby("pid")["ts"].agg(["size", "min"]) for f in _times(trace) if len(f)]
    if not counts:
        return []
    total = pd.concat(counts).groupby(level=0).agg({"size": "sum", "min": "min"})
    last = trace.frames["session"].groupby("pid").last()
    found = [
        _process(trace, int(pid), row, last)
        for pid, (_, row) in zip(total.index.to_numpy(), total.iterrows(), strict=True)
    ]
    return sorted(found, key=lambda p: (p.first, p.pid))


def _times(trace: Trace) -> Iterator[pd.DataFrame]:
    """When the events of each kind were, and in which process; of block operations in parts."""
    yield from (trace.frames[name] for name in FRAME_NAMES if name != "kv")
    yield from (part for _, part in trace.kv.slices(("pid", "ts")))


def _process(trace: Trace, pid: int, count: pd.Series, last: pd.DataFrame) -> Process:
    session: dict[str, object] = {}
    if pid in last.index:
        said = last.loc[pid].dropna()
        # Python's own numbers instead of numpy's, which JSON does not know.
        plain = [v.item() if isinstance(v, np.generic) else v for v in said]
        session = dict(zip(map(str, said.index), plain, strict=True))
    role = session.get("role")
    if role is None:
        engine = any((trace.frames[n]["pid"] == pid).any() for n in _ENGINE_FRAMES)
        engine = engine or len(trace.kv.only({pid})) > 0
        worker = any((trace.frames[n]["pid"] == pid).any() for n in _WORKER_FRAMES)
        role = "+".join(n for n, here in (("engine", engine), ("worker", worker)) if here)
    host = session.get("host")
    return Process(
        pid=pid,
        role=str(role),
        dp=_number(session.get("dp")),
        pp=_number(session.get("pp")),
        tp=_number(session.get("tp")),
        host=None if host is None else str(host),
        events=int(count["size"]),
        first=int(count["min"]),
        session=session,
    )


def _number(value: object) -> int | None:
    return None if value is None else int(str(value))


def split_ranks(trace: Trace) -> list[RankTrace]:
    """Cut a trace into ranks, the lead first: the lowest data-, pipeline-, tensor-parallel rank.

    Two engines that claim the same place (two servers in one recording, or an engine that was
    started again) become ranks of their own, in order of appearance, and so do two workers. A
    worker that says whose it is goes with its engine, whichever came first.
    """
    taken: dict[tuple[Rank, str], int] = {}
    members: dict[Rank, list[Process]] = {}
    every = processes_of(trace)
    engines_first = sorted(every, key=lambda p: "engine" not in p.role)
    extras: dict[tuple[str | None, int], tuple[int, int]] = {}  # host, pid -> dp, extra
    for process in engines_first:
        place = Rank(process.dp or 0, process.pp or 0, process.tp or 0)
        roles = process.role.split("+") if process.role else ["unknown"]
        extra = max(taken.get((place, role), 0) for role in roles)
        engine = extras.get((process.host, _number(process.session.get("engine_pid")) or -1))
        if engine is not None and "engine" not in roles:
            place, extra = Rank(engine[0], place.pp, place.tp), engine[1]
        for role in roles:
            taken[place, role] = max(extra + 1, taken.get((place, role), 0))
        if "engine" in roles:
            extras[process.host, _number(process.session.get("pid")) or process.pid] = (
                place.dp,
                extra,
            )
        rank = Rank(place.dp, place.pp, place.tp, extra)
        members.setdefault(rank, []).append(process)
    for found in members.values():
        found.sort(key=lambda p: (p.first, p.pid))
    if len(members) <= 1:
        return [RankTrace(rank, found, trace) for rank, found in members.items()]
    pids = {rank: {p.pid for p in found} for rank, found in members.items()}
    order = sorted(members, key=lambda r: (r.extra, r))
    # Processes that only have events of others' hooks, such as the front end, go with the lead.
    others = {int(pid) for frame in trace.custom.values() for pid in frame["pid"].unique()}
    pids[order[0]] |= others.difference(*pids.values())
    ranks = [RankTrace(rank, members[rank], trace.only(pids[rank])) for rank in order]
    engines = {(r.rank.dp, r.rank.extra): r.trace for r in ranks if _schedules(r.trace)}
    for r in ranks:
        if not _schedules(r.trace):
            r.trace.engine = engines.get((r.rank.dp, r.rank.extra))
    return ranks


def _schedules(trace: Trace) -> bool:
    return len(trace.frames["sched.step"]) > 0
