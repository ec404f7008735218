"""The figures of a session that people ask for first, from its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from profilemate.parse.findings.base import NoData
from profilemate.parse.findings.cuda_graph_padding import padded_steps
from profilemate.parse.findings.graph_names import graph_names
from profilemate.parse.findings.kv_usage import usage_of
from profilemate.parse.findings.reading import (
    count,
    floats,
    object_of,
    objects,
    percent,
    rows_of,
    texts,
    total,
    window,
)
from profilemate.parse.saved import SavedSession


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
    sources = objects(session.metadata, "sources")
    by = ", ".join(dict.fromkeys(str(s.get("recorder") or s.get("kind")) for s in sources))
    return Figure("recorded", said, f"by {by}" if by else "")


def _engine(session: SavedSession) -> Figure:
    version = object_of(session.metadata, "versions").get("vllm")
    roles = [str(p.get("role")) for p in objects(session.metadata, "processes") if p.get("role")]
    parts = [count(roles.count(role), role) for role in dict.fromkeys(roles)]
    return Figure("vLLM", str(version or "version not known"), ", ".join(parts))


def _steps(session: SavedSession) -> Figure:
    frame = rows_of(session, "cuda_graph_coverage", ("steps", "unpadded_tokens"))
    tokens = total(frame, "unpadded_tokens")
    detail = count(tokens, "token") if tokens else ""
    return Figure("steps", f"{total(frame, 'steps') or 0:,.0f}", detail)


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


def _padding(session: SavedSession) -> Figure:
    seen = padded_steps(session)
    return Figure("padding", percent(seen.share), f"{seen.padding:,} of {seen.padded:,} tokens")


def _kv_usage(session: SavedSession) -> Figure:
    usage = usage_of(session, 1.0)
    detail = f"mean {percent(usage.mean)}, of {count(usage.total_blocks, 'block')}"
    return Figure("KV usage", f"peak {percent(usage.peak)}", detail)


def _kv_events(session: SavedSession) -> Figure:
    rows_of(session, "kv_cache_usage", ())
    evicted = len(session.table("kv_cache_evictions"))
    preempted = len(session.table("kv_preemptions"))
    return Figure("evictions", f"{evicted:,}", count(preempted, "preemption"))


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
    _hottest,
    _padding,
    _kv_usage,
    _kv_events,
    _hits,
)
