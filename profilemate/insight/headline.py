"""The figures of a session that people ask for first, from its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from profilemate.insight.findings.cuda_graph_padding import padded_steps
from profilemate.insight.findings.kv_usage import usage_of
from profilemate.insight.graph_names import graph_names
from profilemate.insight.reading import (
    NoData,
    count,
    floats,
    percent,
    rows_of,
    table_of,
    texts,
    total,
    window,
)
from profilemate.parse.session.saved import SavedSession


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline figure: its label, the figure itself, and what belongs to it."""

    label: str
    figure: str
    detail: str = ""

    @property
    def text(self) -> str:
        """Figure and detail on one line."""
        return f"{self.figure}, {self.detail}" if self.detail else self.figure


def headline(session: SavedSession) -> list[Figure]:
    """The figures that the session has, what was recorded first."""
    found = []
    for of in _FIGURES:
        try:
            found.append(of(session))
        except NoData:
            continue
    return found


def _recorded(session: SavedSession) -> Figure:
    times = window(session)
    said = "not known how long" if times is None else f"{times[1] - times[0]:.1f} s"
    by = ", ".join(dict.fromkeys(str(s.by) for s in session.metadata.sources))
    return Figure("recorded", said, f"by {by}" if by else "")


def _engine(session: SavedSession) -> Figure:
    version = session.metadata.versions.get("vllm")
    roles = [p.role for p in session.metadata.processes if p.role]
    parts = [count(roles.count(role), role) for role in dict.fromkeys(roles)]
    return Figure("vLLM", version or "version not known", ", ".join(parts))


def _steps(session: SavedSession) -> Figure:
    frame = rows_of(session, "cuda_graph_coverage", ("steps", "unpadded_tokens"))
    tokens, empty = total(frame, "unpadded_tokens"), total(frame, "empty_steps")
    told = [count(tokens, "token")] if tokens else []
    told += [f"{empty:,.0f} more without any token"] if empty else []
    return Figure("steps", f"{total(frame, 'steps') or 0:,.0f}", ", ".join(told))


def _on_graphs(session: SavedSession) -> Figure:
    frame = rows_of(session, "cuda_graph_coverage", ("runtime_mode", "steps", "gpu_graph_share"))
    mode, steps = texts(frame["runtime_mode"]), floats(frame["steps"])
    known = np.nansum(steps[mode != ""])
    if not known:
        raise NoData("no step says whether it ran on a graph")
    on_graph = np.isin(mode, ("FULL", "PIECEWISE"))
    gpu = total(frame[on_graph], "gpu_graph_share")
    detail = "" if gpu is None else f"{percent(gpu)} of the GPU time"
    return Figure("on graphs", f"{percent(np.nansum(steps[on_graph]) / known)} of steps", detail)


def _hottest(session: SavedSession) -> Figure:
    columns = ("steps", "gpu_span_p50_ms", "launch_p50_ms")
    frame = rows_of(session, "cuda_graph_replay_latency", columns)
    steps = floats(frame["steps"])
    top = int(steps.argmax())
    detail = f"{percent(steps[top] / steps.sum())} of the replays"
    span, launch = (float(floats(frame[c])[top]) for c in columns[1:])
    if not np.isnan(span):
        detail += f", median {span:.3f} ms on the GPU"
    elif not np.isnan(launch):
        detail += f", median {launch:.3f} ms to launch"
    return Figure("hottest graph", graph_names(frame)[top], detail)


def _replays(session: SavedSession) -> Figure:
    frame = rows_of(session, "cuda_graph_replay_latency", ("gpu_span_p50_ms",))
    span = floats(frame["gpu_span_p50_ms"])
    known = np.flatnonzero(~np.isnan(span))
    if len(known) < 2:
        raise NoData("fewer than two graphs have GPU times: the hottest one says it all")
    names = graph_names(frame)
    short, long = known[span[known].argmin()], known[span[known].argmax()]
    return Figure(
        "replays",
        f"{span[short]:.3f} to {span[long]:.3f} ms",
        f"medians of {len(known)} graphs on the GPU: {names[short]} to {names[long]}",
    )


def _eager(session: SavedSession) -> Figure:
    columns = ("runtime_mode", "unpadded_tokens", "count")
    frame = rows_of(session, "cuda_graph_padding", columns)
    tokens, times = floats(frame["unpadded_tokens"]), floats(frame["count"])
    eager = (texts(frame["runtime_mode"]) == "NONE") & ~np.isnan(tokens)
    if not eager.any():
        raise NoData("no step ran eagerly, or not with its tokens")
    order = np.argsort(tokens[eager])
    size, upto = tokens[eager][order], np.cumsum(times[eager][order])
    detail = f"of {size[0]:,.0f} tokens"
    if size[0] < size[-1]:
        middle = size[np.searchsorted(upto, upto[-1] / 2)]
        detail = f"of {size[0]:,.0f} to {size[-1]:,.0f} tokens, median {middle:,.0f}"
    return Figure("eager", count(upto[-1], "step"), detail)


def _padding(session: SavedSession) -> Figure:
    seen = padded_steps(session)
    detail = f"{seen.padding:,} of {seen.padded:,} tokens"
    if seen.padding:
        frame = rows_of(session, "cuda_graph_padding", ("num_paddings", "count"))
        frame = frame[np.isin(texts(frame["runtime_mode"]), ["FULL", "PIECEWISE"])]
        wasted = floats(frame["num_paddings"]) * floats(frame["count"])
        size = floats(frame["padded_tokens"])
        sums = {n: float(np.nansum(wasted[size == n])) for n in np.unique(size[size > 0]).tolist()}
        worst = max(sums, key=lambda n: sums[n])
        detail += f", most of it at size {worst:,.0f} ({sums[worst]:,.0f} of {seen.padding:,})"
    return Figure("padding", percent(seen.share), detail)


def _kv_usage(session: SavedSession) -> Figure:
    usage = usage_of(session, 1.0)
    detail = f"mean {percent(usage.mean)}, of {count(usage.total_blocks, 'block')}"
    return Figure("KV usage", f"peak {percent(usage.peak)}", detail)


def _kv_events(session: SavedSession) -> Figure:
    rows_of(session, "kv_cache_usage", ())
    evicted = len(session.table("kv_cache_evictions"))
    preempted = len(session.table("kv_preemptions"))
    detail = count(preempted, "preemption")
    frame = table_of(session, "kv_cache_evictions", ("lifetime_sec", "idle_sec"))
    lived, idle = floats(frame["lifetime_sec"]), floats(frame["idle_sec"])
    whole = ~np.isnan(lived) & ~np.isnan(idle)
    if whole.any():
        medians = (float(np.median(values[whole])) for values in (lived, idle))
        detail += "; lived {:.3f} s, idle {:.3f} s".format(*medians)
        detail += f" (medians of {count(int(whole.sum()), 'whole life', 'whole lives')})"
    return Figure("evictions", f"{evicted:,}", detail)


def _hits(session: SavedSession) -> Figure:
    frame = rows_of(session, "kv_prefix_cache", ("running_queries", "running_hits"))
    asked, hits = (float(floats(frame[c])[-1]) for c in ("running_queries", "running_hits"))
    if not asked:
        raise NoData("no token was asked for")
    return Figure("prefix hits", percent(hits / asked), f"{hits:,.0f} of {asked:,.0f} tokens")


_FIGURES: tuple[Callable[[SavedSession], Figure], ...] = (
    _recorded,
    _engine,
    _steps,
    _on_graphs,
    _eager,
    _hottest,
    _replays,
    _padding,
    _kv_usage,
    _kv_events,
    _hits,
)
