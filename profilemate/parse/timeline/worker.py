"""The tracks of a worker on the host: its steps, its graph launches, what it captured."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.tables.base import nullable
from profilemate.parse.timeline import steps as steps_
from profilemate.parse.timeline.scope import (
    UNKNOWN,
    Events,
    Scope,
    args_of,
    column,
    counters,
    instants,
    of_pid,
    slices,
)
from profilemate.parse.timeline.tracks import Batch, Flows, Track, Words
from profilemate.parse.trace.steps_on_gpu import owners, step_gpu, step_work
from profilemate.schema import GRAPH_KEY

_LAUNCH_FLOW = 1 << 62  # flow ids of launches begin here, those of steps at 1


def launch_flow(launch: Ints) -> Ints:
    """The flow id of each launch, by its `id`."""
    return _LAUNCH_FLOW + launch


def worker(scope: Scope, group: Track, pid: int, kind: Ints, calls: Ints) -> Iterator[Batch]:
    """All tracks of the worker `pid` on the host.

    Args:
        scope: The timeline.
        group: Where they go.
        pid: Its process.
        kind: What each row of `step` did.
        calls: Row of `sched.step` that made each row of `step`, -1 for none.
    """
    yield from _steps(scope, group, pid, kind, calls)
    yield from _replays(scope, group, pid)
    yield from _captures(scope, group, pid)


def _steps(scope: Scope, group: Track, pid: int, kind: Ints, calls: Ints) -> Iterator[Batch]:
    """The model steps of a worker, and counters of their tokens; arguments as in `worker`."""
    steps = scope.trace.frames["step"]
    rows = of_pid(steps, pid)
    if not len(rows):
        return
    track = scope.tracks.make(
        "slices",
        "Model steps",
        group,
        about="execute_model on the host: what it ran, tokens -> tokens after padding, and on "
        "which kind of CUDA graph.",
        pid=pid,
    )
    ts = column(steps, "ts")
    names, categories = steps_.step_names(steps, kind), steps_.category(kind)
    args = args_of(steps, **_work(scope))
    events = Events(ts, column(steps, "dur"), names, categories, args, _flows(scope, calls))
    yield from slices(scope, track, events, rows)
    about = {
        "unpadded": ("Tokens to run", "Tokens to run in each model step."),
        "num_tokens": ("Tokens with padding", "Tokens with padding in each model step."),
    }
    yield from counters(scope, group, pid, steps, ts, about, unit="tokens")


def _work(scope: Scope) -> dict[str, pd.arrays.IntegerArray]:
    """What the recorder saw of each step on the GPU, as arguments."""
    trace = scope.trace
    work, every = step_work(trace), step_gpu(trace)
    calls = np.full(len(work.launches), trace.api_calls is not None, dtype=bool)
    seen = every.count > 0
    return {
        "launches_seen": nullable(work.launches, calls),
        "gpu_span_ns": nullable(every.span, seen),
        "gpu_busy_ns": nullable(every.busy, seen),
        "gpu_records": nullable(every.count, seen),
    }


def _flows(scope: Scope, calls: Ints) -> Flows:
    """Each step: one id from its schedule call, one id to each of its launches."""
    steps = len(scope.trace.frames["step"])
    from_call = Flows.single(np.where(calls >= 0, np.arange(steps) + 1, 0))
    launches = scope.trace.launches
    step = owners(scope.trace).step
    inside = np.flatnonzero(step >= 0)
    ids = launch_flow(launches["id"].to_numpy(np.int64)[inside])
    return from_call.joined(Flows.grouped(step[inside], ids, steps))


def _replays(scope: Scope, group: Track, pid: int) -> Iterator[Batch]:
    """Our own ranges around a replay, with the API calls of the recorder inside them."""
    trace = scope.trace
    replays, launches = trace.frames["graph.replay"], trace.launches
    marked, calls = of_pid(replays, pid), of_pid(launches, pid)
    # Where nobody annotated, a replay is the call itself.
    replay_of_call = owners(trace).replay[calls]
    inner = replay_of_call >= 0
    replay, call = replay_of_call[inner], calls[inner]
    same = np.ones(len(replay), dtype=bool)
    for name in ("ts", "dur"):
        same &= column(replays, name)[replay] == column(launches, name)[call]
    marked = marked[~np.isin(marked, replay[same])]
    if not len(marked) and not len(calls):
        return
    track = scope.tracks.make(
        "slices",
        "Graph launches",
        group,
        about="CUDA graph launches on the host: calls of the driver or the runtime, and "
        "profilemate's own ranges around them.",
        pid=pid,
    )
    named = launch_names(scope)
    first = len(marked)
    ts = np.concatenate([column(replays, "ts")[marked], column(launches, "ts")[calls]])
    dur = np.concatenate([column(replays, "dur")[marked], column(launches, "dur")[calls]])
    own = _graph_names(replays.iloc[marked])
    texts = [*own.texts, *named.texts]
    codes = np.concatenate([own.codes, named.codes[calls] + len(own.texts)])
    categories = Words(["graph.replay", "launch"], (np.arange(len(ts)) >= first).astype(np.int64))
    args = pd.concat(
        [
            pd.DataFrame(args_of(replays)).iloc[marked],
            pd.DataFrame(launch_args(scope)).iloc[calls],
        ],
        ignore_index=True,
    )
    ids = np.zeros(len(ts), dtype=np.int64)
    ids[first:] = launch_flow(column(launches, "id")[calls])
    flows = Flows.single(ids)
    events = Events(
        ts, dur, Words(texts, codes), categories, {str(c): args[c] for c in args}, flows
    )
    yield from slices(scope, track, events, np.arange(len(ts)), nest=True)


def launch_args(scope: Scope) -> dict[str, object]:
    """Arguments of each launch: which graph, of which step, and what the GPU did for it."""
    trace = scope.trace
    launches, owner = trace.launches, owners(trace)
    steps = trace.frames["step"]
    key = _keys(scope)
    of_step = owner.step >= 0
    number = np.append(column(steps, "step"), UNKNOWN)[owner.step]
    on_gpu = launches["records"].to_numpy(np.int64) > 0
    names = np.array([*trace.names, ""], dtype=object)
    delay = (launches["first"] - launches["ts"]).to_numpy(np.int64)
    return {
        **{str(c): key[c] for c in key},
        "step": nullable(number, of_step & (number != UNKNOWN)),
        "piece": nullable(_pieces(owner.step), of_step),
        "call": names[launches["name"].to_numpy(np.int64)],
        "correlation": launches["correlation"],
        "graph_id": nullable(column(launches, "graph_id"), column(launches, "graph_id") > 0),
        "gpu_records": launches["records"],
        "kernels": launches["kernels"],
        "gpu_delay_ns": nullable(delay, on_gpu),
        "gpu_span_ns": nullable((launches["last"] - launches["first"]).to_numpy(np.int64), on_gpu),
        "gpu_busy_ns": nullable(column(launches, "busy"), on_gpu),
    }


def _pieces(step: Ints) -> Ints:
    """Which launch of its step each launch is, from 0; launches are in order of time."""
    order = np.argsort(step, kind="stable")
    opens = np.flatnonzero(np.diff(step[order], prepend=-2))
    place = np.arange(len(step)) - np.repeat(opens, np.diff(np.append(opens, len(step))))
    pieces = np.empty(len(step), dtype=np.int64)
    pieces[order] = place
    return pieces


def _keys(scope: Scope) -> pd.DataFrame:
    """The graph key of each launch: of the replay that it lies in, else of its step."""
    trace, owner = scope.trace, owners(scope.trace)
    names = [field.name for field in GRAPH_KEY]
    steps, replays = trace.frames["step"][names], trace.frames["graph.replay"][names]
    both = pd.concat([steps, replays], ignore_index=True)
    row = np.where(owner.replay >= 0, owner.replay + len(steps), owner.step)
    return both.reindex(np.where(row < 0, len(both), row)).reset_index(drop=True)


def launch_names(scope: Scope) -> Words:
    """Names of launches and of what they do on the GPU: `FULL 16`, `graph kernels:1a2b3c4d`."""
    return _graph_names(_keys(scope))


def _graph_names(key: pd.DataFrame) -> Words:
    mode_codes, modes = pd.factorize(key["mode"])
    codes, described = pd.factorize(key["descriptor"])

    def spell(mode: int, tokens: int, descriptor: int) -> str:
        words = [str(modes[mode]) if mode >= 0 else "graph"]
        words += [str(tokens)] if tokens >= 0 else []
        words += [str(described[descriptor])] if descriptor >= 0 else []
        return " ".join(words)

    return Words.spelled(spell, mode_codes, column(key, "num_tokens"), codes)


def _captures(scope: Scope, group: Track, pid: int) -> Iterator[Batch]:
    """The graphs that a worker captured."""
    captures = scope.trace.frames["graph.capture"]
    rows = of_pid(captures, pid)
    if not len(rows):
        return
    track = scope.tracks.make("instants", "Graph captures", group, pid=pid)
    names = _graph_names(captures)
    names = Words([f"capture {text}" for text in names.texts], names.codes)
    events = Events(
        column(captures, "ts"),
        column(captures, "dur"),
        names,
        Words.same("capture", len(captures)),
        args_of(captures),
    )
    yield from instants(scope, track, events, rows)
