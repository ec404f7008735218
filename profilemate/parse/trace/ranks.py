"""Which process is which: a trace of many processes, cut into one trace per rank."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import groups
from profilemate.parse.trace.trace import Trace

_ENGINE_FRAMES = ("kv.lookup", "kv.alloc_failed", "sched.step", "preempt", "request")
_WORKER_FRAMES = ("step", "graph.capture", "graph.replay")


@dataclass(frozen=True, slots=True)
class Rank:
    """Place of a process in the run. `extra` tells apart what claims the same place.

    vLLM's ranks: data-parallel, pipeline-parallel, tensor-parallel. An engine stands at the first
    worker of its data-parallel rank. Of a process that only its rank in the world is known of
    (`world`, else -1), or nothing at all (`unknown`), they are 0.
    """

    dp: int
    pp: int
    tp: int
    extra: int = 0
    world: int = -1
    unknown: bool = False

    @property
    def order(self) -> tuple[int, ...]:
        """What ranks are sorted by: the lead is the lowest of those that are known."""
        return (self.unknown, self.extra, self.world, self.dp, self.pp, self.tp)

    @property
    def folder(self) -> str:
        """Name of its folder under `ranks/`."""
        if self.unknown:
            return f"process_{self.extra + 1}"
        known = f"dp{self.dp}_pp{self.pp}_tp{self.tp}"
        name = known if self.world < 0 else f"rank{self.world}"
        return f"{name}_{self.extra}" if self.extra else name


@dataclass(slots=True)
class Process:
    """One process of the recording, as far as it, or else its recording, said who it is."""

    pid: int
    role: str
    dp: int | None
    pp: int | None
    tp: int | None
    host: str | None
    events: int
    first: int
    world: int | None = None
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
    last = trace.frames["session"].groupby("pid").last()
    processes = [_process(trace, pid, events, last) for pid, events in _events(trace).items()]
    return sorted(processes, key=lambda p: (p.first, p.pid))


def _events(trace: Trace) -> dict[int, tuple[int, int]]:
    """For each process, by its pid: how many events of ours it has, begin of the first, ns."""
    events: dict[int, tuple[int, int]] = {}

    def add(pid: int, count: int, first_ns: int) -> None:
        known, earliest_ns = events.get(pid, (0, first_ns))
        events[pid] = known + count, min(earliest_ns, first_ns)

    for frame in trace.frames.values():
        begins = frame["ts"].to_numpy(np.int64)
        for pid, rows in groups(frame["pid"].to_numpy(np.int64)):
            add(pid, len(rows), int(begins[rows].min()))
    for part in trace.kv.slices(("ts",)):
        add(part.pid, len(part), int(part.ints("ts").min()))
    return events


def _process(trace: Trace, pid: int, events: tuple[int, int], last: pd.DataFrame) -> Process:
    """What a process is.

    Args:
        trace: The trace.
        pid: The process.
        events: See `_events`.
        last: By process, the last value of each column of the frame `session` that is known.
    """
    session: dict[str, object] = {}
    if pid in last.index:
        values = last.loc[pid].dropna()
        # Python's own numbers instead of numpy's, which JSON does not know.
        plain = [v.item() if isinstance(v, np.generic) else v for v in values]
        session = dict(zip(map(str, values.index), plain, strict=True))
    role = session.get("role")
    if role is None:
        engine = any((trace.frames[n]["pid"] == pid).any() for n in _ENGINE_FRAMES)
        engine = engine or len(trace.kv.only({pid})) > 0
        worker = any((trace.frames[n]["pid"] == pid).any() for n in _WORKER_FRAMES)
        role = "+".join(n for n, here in (("engine", engine), ("worker", worker)) if here)
    host = session.get("host")
    dp, pp, tp = (_number(session.get(name)) for name in ("dp", "pp", "tp"))
    world = None
    if dp is pp is tp is None:
        place = trace.places.get(pid, (None, None, None))
        if len(place) == 3:
            dp, pp, tp = place
        else:
            (world,) = place
    return Process(
        pid=pid,
        role=str(role),
        dp=dp,
        pp=pp,
        tp=tp,
        host=None if host is None else str(host),
        events=events[0],
        first=events[1],
        world=world,
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
    lowest = min(map(_place, every), key=lambda r: r.order, default=None)
    engines_first = sorted(every, key=lambda p: "engine" not in p.role)
    extras: dict[tuple[str | None, int], tuple[int, int]] = {}  # host, pid -> dp, extra
    for process in engines_first:
        place = _place(process)
        if place.unknown and process.role == "engine" and lowest is not None:
            place = lowest  # an engine is of the lead, whoever that is
        roles = process.role.split("+") if process.role else ["unknown"]
        extra = max(taken.get((place, role), 0) for role in roles)
        engine = extras.get((process.host, _number(process.session.get("engine_pid")) or -1))
        if engine is not None and "engine" not in roles:
            place, extra = replace(place, dp=engine[0]), engine[1]
        for role in roles:
            taken[place, role] = max(extra + 1, taken.get((place, role), 0))
        if "engine" in roles:
            extras[process.host, _number(process.session.get("pid")) or process.pid] = (
                place.dp,
                extra,
            )
        rank = replace(place, extra=extra)
        members.setdefault(rank, []).append(process)
    for found in members.values():
        found.sort(key=lambda p: (p.first, p.pid))
    if len(members) <= 1:
        return [RankTrace(rank, processes, trace) for rank, processes in members.items()]
    pids = {rank: {p.pid for p in processes} for rank, processes in members.items()}
    order = sorted(members, key=lambda rank: rank.order)
    # Processes that only have events of others' hooks, such as the front end, go with the lead.
    others = {int(pid) for frame in trace.custom.values() for pid in frame["pid"].unique()}
    pids[order[0]] |= others.difference(*pids.values())
    traces = {rank: trace.only(pids[rank]) for rank in order}
    engines = {(r.dp, r.extra): part for r, part in traces.items() if _schedules(part)}
    return [
        RankTrace(
            rank, members[rank], _with_engine(traces[rank], engines.get((rank.dp, rank.extra)))
        )
        for rank in order
    ]


def _place(process: Process) -> Rank:
    """Where a process stands by what is known of it."""
    ranks = process.dp, process.pp, process.tp
    if process.world is not None:
        return Rank(0, 0, 0, world=process.world)
    dp, pp, tp = (rank or 0 for rank in ranks)
    return Rank(dp, pp, tp, unknown=all(rank is None for rank in ranks))


def _with_engine(trace: Trace, engine: Trace | None) -> Trace:
    """The trace of one rank, which knows its engine's unless it has that engine's events itself."""
    return trace if engine is None or _schedules(trace) else replace(trace, engine=engine)


def _schedules(trace: Trace) -> bool:
    return len(trace.frames["sched.step"]) > 0
