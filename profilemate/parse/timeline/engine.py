"""The tracks of an engine: its scheduler and its KV cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.tables.base import flags
from profilemate.parse.tables.kv_requests import kv_prefix_cache
from profilemate.parse.tables.pools import usage
from profilemate.parse.timeline import steps as steps_
from profilemate.parse.timeline.blocks import CachedFree
from profilemate.parse.timeline.scope import (
    UNKNOWN,
    Events,
    Scope,
    args_of,
    column,
    counters,
    instants,
    of_pid,
    samples,
    slices,
)
from profilemate.parse.timeline.tracks import Batch, Flows, Track, Words
from profilemate.parse.trace.kv_log import ALL, KvLog, KvSlice, empty_slice, joined_slices

CHUNK = 1 << 18  # operations on blocks that are looked at together


def engine(scope: Scope, group: Track, pid: int, kind: Ints, flows: Flows) -> Iterator[Batch]:
    """All tracks of the engine `pid`.

    Args:
        scope: The timeline.
        group: Where they go.
        pid: Its process.
        kind: What each row of `sched.step` scheduled.
        flows: Flow ids of each row of `sched.step`.
    """
    yield from _scheduler(scope, group, pid, kind, flows)
    yield from _kv_cache(scope, group, pid)
    yield from _requests(scope, group, pid)


def _scheduler(scope: Scope, group: Track, pid: int, kind: Ints, flows: Flows) -> Iterator[Batch]:
    """The calls of the scheduler, and how many requests each leaves running and waiting."""
    calls = scope.trace.frames["sched.step"]
    rows = of_pid(calls, pid)
    if not len(rows):
        return
    about = "Scheduler.schedule calls: decode, prefill or mixed, and the tokens they scheduled."
    track = scope.tracks.make("slices", "Scheduler steps", group, about=about, pid=pid)
    ts, dur = column(calls, "ts"), column(calls, "dur")
    names = steps_.call_names(calls, kind)
    events = Events(ts, dur, names, steps_.category(kind), args_of(calls), flows)
    yield from slices(scope, track, events, rows)
    # What the call says of requests is how it leaves them.
    end = ts + np.maximum(dur, 0)
    about_counters = {
        name: (f"Requests {name}", f"Requests {name} after each Scheduler.schedule call.")
        for name in ("running", "waiting")
    }
    yield from counters(scope, group, pid, calls, end, about_counters, unit="requests")


# ------------------------------------------------------------------ the KV cache


@dataclass(slots=True)
class _Pool:
    """One block pool, followed through its log of operations."""

    usage: Track
    blocks: tuple[Track, Track, Track]  # in use, cached and free, empty
    total: int
    cached: CachedFree
    last: dict[int, float]  # the last sample of each track


def _kv_cache(scope: Scope, group: Track, pid: int) -> Iterator[Batch]:
    """Counters of each pool, one sample for each scheduler step in which the figure changed."""
    calls = scope.trace.frames["sched.step"]
    rows = of_pid(calls, pid)
    ends = np.sort(column(calls, "ts")[rows] + np.maximum(column(calls, "dur")[rows], 0))
    pools: dict[int, _Pool] = {}
    for part, step in _by_steps(scope.trace.kv.only({pid}), ends):
        number = part.ints("pool", 0)
        for pool in np.unique(number).tolist():
            if pool not in pools:
                pools[pool] = _pool(scope, group, pid, pool)
            of_pool = np.flatnonzero(number == pool)
            yield from _pool_samples(scope, pools[pool], part.pick(of_pool), step[of_pool])


def _by_steps(kv: KvLog, ends: Ints) -> Iterator[tuple[KvSlice, Ints]]:
    """The operations of a process in chunks of whole steps, and the step of each operation.

    An operation belongs to the schedule call that it lies in, or else to the next one, as in
    `tables.pools.SchedulerSteps`; without any call each is a step of its own.

    Args:
        kv: The operations.
        ends: When the schedule calls of the process end, ns, rising.
    """
    rest, latest, seen = empty_slice(_NEEDED), 0, 0
    for chunk in _chunks(kv):
        part = joined_slices([rest, chunk]) if len(rest) else chunk
        step = np.searchsorted(ends, part.ints("ts"))
        # The log's order is the truth where a time stamp within one call runs backwards.
        step = np.maximum(np.maximum.accumulate(step), latest)
        if not len(ends):
            step = seen + np.arange(len(part))
        starts = np.flatnonzero(np.diff(step)) + 1
        seen += len(chunk)
        # The last step may go on.
        whole = len(part) if seen == len(kv) else int(starts[-1]) if len(starts) else 0
        if whole:
            yield part.pick(slice(whole)), step[:whole]
            latest = int(step[whole - 1])
        rest = part.pick(slice(whole, None))


_NEEDED = ("ts", "pool", "used", "op", "ids", "subset", "dst", "ok")


def _chunks(kv: KvLog) -> Iterator[KvSlice]:
    size = kv.budget.rows if kv.budget.strict else CHUNK
    waiting: list[KvSlice] = []
    for part in kv.slices(_NEEDED):
        waiting.append(part)
        if sum(map(len, waiting)) >= size:
            yield joined_slices(waiting)
            waiting = []
    if waiting:
        yield joined_slices(waiting)


def _pool(scope: Scope, group: Track, pid: int, number: int) -> _Pool:
    """The tracks of a pool, of which nothing was followed yet."""
    described = scope.trace.frames["kv.pool"]
    described = described[(described["pid"] == pid) & (described["pool"].fillna(0) == number)]
    total = described["num_blocks"].dropna()
    medium = described["medium"].dropna()
    where = "" if number == 0 else f" (pool {number}, {medium.iloc[-1] if len(medium) else 'GPU'})"

    def make(name: str, unit: str, about: str) -> Track:
        share = "" if unit == "%" else f"blocks{number}"
        return scope.tracks.make(
            "counter", f"{name}{where}", group, unit=unit, share=share, about=about, pid=pid
        )

    return _Pool(
        make("KV cache usage", "%", "Share of the pool's blocks in use: vLLM's get_usage()."),
        (
            make("KV blocks in use", "blocks", "Blocks that requests hold."),
            make(
                "KV blocks cached, free",
                "blocks",
                "Free blocks that still hold cached content. Blocks that were cached before the "
                "recording began count as empty until a prefix hit takes them.",
            ),
            make("KV blocks empty", "blocks", "Free blocks without cached content."),
        ),
        UNKNOWN if total.empty else int(total.iloc[-1]),
        CachedFree(),
        {},
    )


def _pool_samples(scope: Scope, pool: _Pool, kv: KvSlice, step: Ints) -> Iterator[Batch]:
    """Samples of a pool's counters after each step in which they changed.

    Args:
        scope: The timeline.
        pool: The pool, followed so far.
        kv: n operations of it, which follow those before.
        step: The step of each, length n.
    """
    ts, used = kv.ints("ts"), kv.ints("used", UNKNOWN)
    cached = pool.cached.feed(kv)
    known = used != UNKNOWN
    if pool.total != UNKNOWN:  # a pool's own count is right where the log has gaps
        cached = np.clip(cached, 0, np.maximum(pool.total - used, 0))
    last = np.ones(len(kv), dtype=bool)
    last[:-1] = step[1:] != step[:-1]
    samples_at = np.flatnonzero(last & known)
    share = 100 * usage(used, np.full(len(used), pool.total)).to_numpy(float, na_value=np.nan)
    empty = pool.total - used - cached
    in_use, cached_free, rest = pool.blocks
    series = [(in_use, used.astype(float)), (cached_free, cached.astype(float))]
    if pool.total != UNKNOWN:
        series = [(pool.usage, share), *series, (rest, empty.astype(float))]
    for track, values in series:
        before = pool.last.get(track.number, np.nan)
        changed = np.diff(values[samples_at], prepend=before) != 0  # NaN differs from everything
        if len(rows := samples_at[changed]):
            pool.last[track.number] = float(values[rows[-1]])
            yield from samples(scope, track, ts, values, rows)


# ------------------------------------------------------------------ what happens to requests


def _requests(scope: Scope, group: Track, pid: int) -> Iterator[Batch]:
    frames = scope.trace.frames
    yield from _hit_rate(scope, group, pid)
    yield from _operations(scope, group, pid, "Evictions", "evict", _evicted)
    preempt, failed, request = (frames[n] for n in ("preempt", "kv.alloc_failed", "request"))
    yield from _events(scope, group, pid, "Preemptions", preempt, _preempted)
    yield from _operations(scope, group, pid, "Prefix-cache resets", "reset", _reset)
    yield from _events(scope, group, pid, "Failed allocations", failed, _failed)
    yield from _events(scope, group, pid, "Requests arrived and finished", request, _request)


Spell = Callable[[pd.DataFrame], Words]


def _events(
    scope: Scope, group: Track, pid: int, name: str, frame: pd.DataFrame, spell: Spell
) -> Iterator[Batch]:
    rows = of_pid(frame, pid)
    if len(rows):
        track = scope.tracks.make("instants", name, group, pid=pid)
        for begin in range(0, len(rows), CHUNK):
            picked = frame.iloc[rows[begin : begin + CHUNK]].reset_index(drop=True)
            yield from _instants(scope, track, picked, spell(picked))


def _operations(
    scope: Scope, group: Track, pid: int, name: str, op: str, spell: Spell
) -> Iterator[Batch]:
    track = None
    for part in scope.trace.kv.only({pid}).slices(ALL):
        rows = np.flatnonzero(part.is_op(op))
        if len(rows):
            picked = part.pick(rows).frame()
            track = track or scope.tracks.make("instants", name, group, pid=pid)
            yield from _instants(scope, track, picked, spell(picked))


def _instants(scope: Scope, track: Track, frame: pd.DataFrame, names: Words) -> Iterator[Batch]:
    categories = Words.same(track.name.split()[0].lower(), len(frame))
    events = Events(column(frame, "ts"), column(frame, "dur"), names, categories, args_of(frame))
    yield from instants(scope, track, events, np.arange(len(frame)))


# A viewer colours by name without its digits: what is alike is worded alike.


def _sized(what: str, unit: str, sizes: Ints) -> Words:
    """`what, unit: 3` for each size; `what` where it is not known."""
    return Words.spelled(lambda n: what if n < 0 else f"{what}, {unit}: {n}", sizes)


def _evicted(frame: pd.DataFrame) -> Words:
    blocks = np.fromiter((len(ids or ()) for ids in frame["ids"]), np.int64, len(frame))
    return _sized("evict", "blocks", blocks)


def _preempted(frame: pd.DataFrame) -> Words:
    return _sized("preempt", "tokens lost", column(frame, "tokens"))


def _reset(frame: pd.DataFrame) -> Words:
    done = flags(frame["ok"].fillna(True)).astype(np.int64)
    return Words(["reset refused", "reset"], done)


def _failed(frame: pd.DataFrame) -> Words:
    return _sized("did not fit", "free blocks", column(frame, "free"))


def _request(frame: pd.DataFrame) -> Words:
    finished = (frame["what"] == "finished").to_numpy(dtype=bool, na_value=False)
    arrived = _sized("arrived", "prompt tokens", column(frame, "prompt_tokens"))
    left = _sized("finished", "output tokens", column(frame, "output_tokens"))
    codes = np.where(finished, len(arrived.texts) + left.codes, arrived.codes)
    return Words([*arrived.texts, *left.texts], codes)


def _hit_rate(scope: Scope, group: Track, pid: int) -> Iterator[Batch]:
    """The running prefix hit rate after each look-up, as a counter."""
    lookups = scope.trace.frames["kv.lookup"]
    rows = of_pid(lookups, pid)
    if not len(rows):
        return
    rate = kv_prefix_cache(scope.trace)["running_hit_rate"].to_numpy(float, na_value=np.nan)
    track = scope.tracks.make(
        "counter",
        "Prefix hit rate",
        group,
        unit="%",
        about="Tokens found in the prefix cache of all that were asked for since the recording "
        "began; look-ups of preempted requests are left out, as in vLLM's counters.",
        pid=pid,
    )
    rows = rows[~np.isnan(rate[rows])]
    yield from samples(scope, track, column(lookups, "ts"), 100 * rate, rows)
