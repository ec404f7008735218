"""The figures of a session that people ask for first, from its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from profilemate.insight.figures import graphs, kv, recorded, steps
from profilemate.insight.figures.base import missed
from profilemate.insight.graph_names import graph_names
from profilemate.insight.reading import (
    NoData,
    count,
    floats,
    percent,
    rows_of,
    table_of,
    texts,
)
from profilemate.parse.session.saved import SavedSession
from profilemate.schema.modes import EAGER


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the headline: its label, the figure itself, and what belongs to it."""

    label: str
    figure: str
    detail: str = ""

    @property
    def text(self) -> str:
        """Figure and detail on one line."""
        return f"{self.figure}, {self.detail}" if self.detail else self.figure


def headline(session: SavedSession) -> list[Line]:
    """The figures that the session has, what was recorded first."""
    found = []
    for of in _LINES:
        asked: set[str] = set()
        try:
            line = of(session.noting(asked))
        except NoData:
            continue
        why = missed(session, asked)
        found.append(Line(line.label, "not known", why) if why else line)
    return found


def _recorded(session: SavedSession) -> Line:
    length = recorded.LENGTH.value(session).value
    said = "not known how long" if length is None else f"{length:.1f} s"
    by = ", ".join(dict.fromkeys(str(s.by) for s in session.metadata.sources))
    return Line("recorded", said, f"by {by}" if by else "")


def _engine(session: SavedSession) -> Line:
    version = session.metadata.versions.get("vllm")
    roles = [p.role for p in session.metadata.processes if p.role]
    parts = [count(roles.count(role), role) for role in dict.fromkeys(roles)]
    return Line("vLLM", version or "version not known", ", ".join(parts))


def _steps(session: SavedSession) -> Line:
    tokens, empty = (f.value(session).value for f in (steps.TOKENS, steps.EMPTY_STEPS))
    parts = [count(tokens, "token")] if tokens else []
    parts += [f"{empty:,.0f} more without any token"] if empty else []
    return Line("steps", f"{steps.STEPS.of(session):,.0f}", ", ".join(parts))


def _on_graphs(session: SavedSession) -> Line:
    share, gpu = steps.GRAPH_STEPS.of(session), steps.GRAPH_GPU.value(session).value
    detail = "" if gpu is None else f"{percent(gpu / 100)} of the GPU time"
    return Line("on graphs", f"{percent(share / 100)} of steps", detail)


def _hottest(session: SavedSession) -> Line:
    columns = ("gpu_span_p50_ms", "launch_p50_ms")
    frame, share = graphs.replays(session, *columns)
    top = int(share.argmax())
    detail = f"{percent(graphs.HOTTEST.of(session) / 100)} of the replays"
    span, launch = (float(floats(frame[c])[top]) for c in columns)
    if not np.isnan(span):
        detail += f", median {span:.3f} ms on the GPU"
    elif not np.isnan(launch):
        detail += f", median {launch:.3f} ms to launch"
    return Line("hottest graph", graph_names(frame)[top], detail)


def _replays(session: SavedSession) -> Line:
    frame = rows_of(session, "cuda_graph_replay_latency", ("gpu_span_p50_ms",))
    span = floats(frame["gpu_span_p50_ms"])
    known = np.flatnonzero(~np.isnan(span))
    if len(known) < 2:
        raise NoData("fewer than two graphs have GPU times: the hottest one says it all")
    names = graph_names(frame)
    short, long = known[span[known].argmin()], known[span[known].argmax()]
    return Line(
        "replays",
        f"{span[short]:.3f} to {span[long]:.3f} ms",
        f"medians of {len(known)} graphs on the GPU: {names[short]} to {names[long]}",
    )


def _eager(session: SavedSession) -> Line:
    columns = ("runtime_mode", "unpadded_tokens", "count")
    frame = rows_of(session, "cuda_graph_padding", columns)
    tokens, times = floats(frame["unpadded_tokens"]), floats(frame["count"])
    eager = (texts(frame["runtime_mode"]) == EAGER) & ~np.isnan(tokens)
    if not eager.any():
        raise NoData("no step ran eagerly, or not with its tokens")
    order = np.argsort(tokens[eager])
    size, upto = tokens[eager][order], np.cumsum(times[eager][order])
    detail = f"of {size[0]:,.0f} tokens"
    if size[0] < size[-1]:
        middle = size[np.searchsorted(upto, upto[-1] / 2)]
        detail = f"of {size[0]:,.0f} to {size[-1]:,.0f} tokens, median {middle:,.0f}"
    return Line("eager", count(upto[-1], "step"), detail)


def _padding(session: SavedSession) -> Line:
    seen, share = graphs.padded_steps(session), graphs.PADDING.of(session)
    detail = f"{seen.padding:,} of {seen.padded:,} tokens"
    if seen.padding:
        worst = max(sorted(seen.by_size), key=lambda size: seen.by_size[size])
        most = f"{seen.by_size[worst]:,} of {seen.padding:,}"
        detail += f", most of it at size {worst:,} ({most})"
    return Line("padding", percent(share / 100), detail)


def _kv_usage(session: SavedSession) -> Line:
    peak, mean, blocks = (f.of(session) for f in (kv.PEAK, kv.MEAN, kv.BLOCKS))
    detail = f"mean {percent(mean / 100)}, of {count(blocks, 'block')}"
    return Line("KV usage", f"peak {percent(peak / 100)}", detail)


def _kv_events(session: SavedSession) -> Line:
    evicted, preempted = (f.value(session).value for f in (kv.EVICTIONS, kv.PREEMPTIONS))
    if evicted is None and preempted is None:
        raise NoData("neither evictions nor preemptions were recorded")
    parts = ["preemptions not known" if preempted is None else count(preempted, "preemption")]
    frame = table_of(session, "kv_cache_evictions", ("lifetime_sec", "idle_sec"))
    lived, idle = floats(frame["lifetime_sec"]), floats(frame["idle_sec"])
    whole = ~np.isnan(lived) & ~np.isnan(idle)
    if whole.any():
        medians = (float(np.median(values[whole])) for values in (lived, idle))
        lives = count(int(whole.sum()), "whole life", "whole lives")
        parts.append("lived {:.3f} s, idle {:.3f} s".format(*medians) + f" (medians of {lives})")
    return Line(
        "evictions", "not known" if evicted is None else f"{evicted:,.0f}", "; ".join(parts)
    )


def _hits(session: SavedSession) -> Line:
    asked, hits, rate = (f.of(session) for f in (kv.ASKED, kv.FOUND, kv.HIT_RATE))
    return Line("prefix hits", percent(rate / 100), f"{hits:,.0f} of {asked:,.0f} tokens")


_LINES: tuple[Callable[[SavedSession], Line], ...] = (
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
