"""Figures of two sessions side by side: one row each, with a name for --fail-on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from profilemate.insight.compare.graphs import Graphs, ranked
from profilemate.insight.compare.noise import Floats
from profilemate.insight.findings.kv_usage import usage_of
from profilemate.insight.reading import NoData, floats, rows_of, table_of, texts, total, truths
from profilemate.parse.session.saved import SavedSession

Better = Literal["lower", "higher", ""]
Pair = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a session.

    Attributes:
        name: As --fail-on has it.
        title: As a table has it.
        unit: `ms`, `%`, `/s` or empty.
        better: Which way is better, empty where neither is.
        doc: What it is, exactly.
        of: Sessions and graphs to the figure of A and of B; None where one cannot tell.
    """

    name: str
    title: str
    unit: str
    better: Better
    doc: str
    of: Callable[[SavedSession, SavedSession, Graphs], Pair]


def _each(of: Callable[[SavedSession], float | None]) -> Callable[..., Pair]:
    """A figure that each session has by itself."""

    def pair(a: SavedSession, b: SavedSession, graphs: Graphs) -> Pair:
        return _or_none(of, a), _or_none(of, b)

    return pair


def _or_none(of: Callable[[SavedSession], float | None], session: SavedSession) -> float | None:
    try:
        value = of(session)
    except NoData:
        return None
    return None if value is None or np.isnan(value) else float(value)


def _replay(of: Callable[[Floats], float | None]) -> Callable[..., Pair]:
    """A statistic of the common graphs' durations, each graph with its steps in A and B."""

    def pair(a: SavedSession, b: SavedSession, graphs: Graphs) -> Pair:
        common = [p for p in graphs.series.values() if len(p[0]) and len(p[1])]
        weights = np.array([len(x) + len(y) for x, y in common], dtype=np.float64)
        if not common:
            return None, None
        weights /= weights.sum()
        sides = zip(*((of(x), of(y)) for x, y in common), strict=True)
        before, after = (
            float(sum(w * (v or 0.0) for w, v in zip(weights, s, strict=True))) for s in sides
        )
        return before, after

    return pair


def _outcomes(outcome: str) -> Callable[..., Pair]:
    def pair(a: SavedSession, b: SavedSession, graphs: Graphs) -> Pair:
        if not any(r.q is not None for r in graphs.rows):
            return None, None
        return 0.0, float(sum(r.outcome == outcome for r in graphs.rows))

    return pair


def _mode_sum(column: str, modes: tuple[str, ...]) -> Callable[[SavedSession], float | None]:
    def of(session: SavedSession) -> float | None:
        frame = rows_of(session, "cuda_graph_coverage", ("runtime_mode", column))
        return total(frame[np.isin(texts(frame["runtime_mode"]), modes)], column)

    return of


def _percent(of: Callable[[SavedSession], float | None]) -> Callable[[SavedSession], float | None]:
    def scaled(session: SavedSession) -> float | None:
        value = of(session)
        return None if value is None else 100 * value

    return scaled


def _steps(session: SavedSession) -> float | None:
    return total(rows_of(session, "cuda_graph_coverage", ("steps",)), "steps")


def _tokens(session: SavedSession) -> float | None:
    frame = rows_of(session, "cuda_graph_coverage", ("steps", "unpadded_tokens"))
    return total(frame[floats(frame["steps"]) > 0], "unpadded_tokens")  # a mode without steps has 0


def _throughput(session: SavedSession) -> float | None:
    frame = rows_of(
        session, "cuda_graph_steps", ("timestamp_sec", "unpadded_tokens", "host_ms", "dummy")
    )
    tokens = floats(frame["unpadded_tokens"])
    real = ~truths(frame["dummy"]) & (tokens > 0)
    if not real.any():
        raise NoData("no step says how many tokens it ran")
    at, host = floats(frame["timestamp_sec"])[real], floats(frame["host_ms"])[real]
    ends = (at + host / 1e3)[~np.isnan(at + host)]
    seconds = float(ends.max() - np.nanmin(at)) if len(ends) else 0.0
    return float(tokens[real].sum()) / seconds if seconds > 0 else None


def _step_host(session: SavedSession) -> float | None:
    frame = rows_of(session, "cuda_graph_steps", ("host_ms", "unpadded_tokens", "dummy"))
    host = floats(frame["host_ms"])
    real = ~truths(frame["dummy"]) & ~np.isnan(host)
    real &= ~(floats(frame["unpadded_tokens"]) == 0)
    return ranked(host[real], 50)


def _eager_decode(session: SavedSession) -> float | None:
    frame = rows_of(
        session, "cuda_graph_steps", ("runtime_mode", "prefill_tokens", "decode_tokens", "dummy")
    )
    mode = texts(frame["runtime_mode"])
    decode = (floats(frame["prefill_tokens"]) == 0) & (floats(frame["decode_tokens"]) > 0)
    decode &= ~truths(frame["dummy"]) & (mode != "")
    return 100 * float((mode[decode] == "NONE").mean()) if decode.any() else None


def _padding(session: SavedSession) -> float | None:
    frame = rows_of(
        session, "cuda_graph_coverage", ("runtime_mode", "padding_tokens", "padded_tokens")
    )
    frame = frame[np.isin(texts(frame["runtime_mode"]), GRAPHS)]
    padding, padded = total(frame, "padding_tokens"), total(frame, "padded_tokens")
    return 100 * padding / padded if padded and padding is not None else None


def _graphs(column: str) -> Callable[[SavedSession], float | None]:
    def of(session: SavedSession) -> float | None:
        rows_of(session, "cuda_graph_captures", ())
        return total(rows_of(session, "cuda_graph_coverage", (column,)), column)

    return of


def _rows(name: str) -> Callable[[SavedSession], float | None]:
    """Rows of a table of the KV cache, where the KV cache was recorded."""

    def of(session: SavedSession) -> float | None:
        rows_of(session, "kv_cache_usage", ())
        return float(len(session.table(name)))

    return of


def _lost(session: SavedSession) -> float | None:
    rows_of(session, "kv_cache_usage", ())
    return float(
        np.nansum(floats(table_of(session, "kv_preemptions", ("tokens_lost",))["tokens_lost"]))
    )


def _life(session: SavedSession) -> float | None:
    life = floats(rows_of(session, "kv_cache_evictions", ("lifetime_sec",))["lifetime_sec"])
    return float(np.nanmean(life)) if not np.isnan(life).all() else None


def _hit_rate(session: SavedSession) -> float | None:
    frame = rows_of(session, "kv_prefix_cache", ("running_queries", "running_hits"))
    asked, hits = (float(floats(frame[c])[-1]) for c in ("running_queries", "running_hits"))
    return 100 * hits / asked if asked else None


GRAPHS = ("FULL", "PIECEWISE")
_MIX = (
    " per graph, averaged over the graphs that both sessions ran, each with its steps in both: "
    "another mix of batch sizes does not move it. GPU span where both have GPU records, else the "
    "host's time"
)

_ROWS = (
    Metric(
        "replay_p50",
        "replay, median",
        "ms",
        "lower",
        "median" + _MIX,
        _replay(lambda s: ranked(s, 50)),
    ),
    Metric(
        "replay_p90",
        "replay, p90",
        "ms",
        "lower",
        "90th percentile" + _MIX,
        _replay(lambda s: ranked(s, 90)),
    ),
    Metric(
        "replay_p99",
        "replay, p99",
        "ms",
        "lower",
        "99th percentile" + _MIX,
        _replay(lambda s: ranked(s, 99)),
    ),
    Metric(
        "replay_mean",
        "replay, mean",
        "ms",
        "lower",
        "mean" + _MIX,
        _replay(lambda s: float(s.mean())),
    ),
    Metric(
        "graphs_slower",
        "graphs slower",
        "",
        "lower",
        "graphs whose steps take longer in B by more than noise; 0 in A",
        _outcomes("slower"),
    ),
    Metric(
        "graphs_faster",
        "graphs faster",
        "",
        "higher",
        "graphs whose steps take less in B by more than noise; 0 in A",
        _outcomes("faster"),
    ),
    Metric(
        "step_host_p50",
        "step on the host, median",
        "ms",
        "lower",
        "median host duration of all steps",
        _each(_step_host),
    ),
    Metric(
        "tokens_per_sec",
        "tokens run a second",
        "/s",
        "higher",
        "unpadded tokens of all steps, over the time from the first's begin to the last's end",
        _each(_throughput),
    ),
    Metric(
        "graph_steps_pct",
        "steps on graphs",
        "%",
        "higher",
        "steps on FULL or PIECEWISE graphs, of all steps with tokens",
        _each(_percent(_mode_sum("step_share", GRAPHS))),
    ),
    Metric(
        "graph_tokens_pct",
        "tokens on graphs",
        "%",
        "higher",
        "tokens of these steps, of all",
        _each(_percent(_mode_sum("token_share", GRAPHS))),
    ),
    Metric(
        "graph_gpu_pct",
        "GPU time on graphs",
        "%",
        "higher",
        "GPU busy of graph launches, of all",
        _each(_percent(_mode_sum("gpu_graph_share", GRAPHS))),
    ),
    Metric(
        "eager_decode_pct",
        "decode steps run eagerly",
        "%",
        "lower",
        "of the steps without prefill tokens",
        _each(_eager_decode),
    ),
    Metric(
        "padding_pct",
        "padding",
        "%",
        "lower",
        "padding tokens, of the padded tokens on graphs",
        _each(_padding),
    ),
    Metric(
        "graphs_captured",
        "graphs captured",
        "",
        "",
        "graphs captured in the recording",
        _each(_graphs("graphs_captured")),
    ),
    Metric(
        "graphs_unused",
        "graphs never replayed",
        "",
        "lower",
        "of these, not replayed in it",
        _each(_graphs("graphs_never_replayed")),
    ),
    Metric(
        "kv_peak_pct",
        "KV usage, peak",
        "%",
        "",
        "most blocks in use, of all",
        _each(lambda s: 100 * usage_of(s, 1.0).peak),
    ),
    Metric(
        "kv_mean_pct",
        "KV usage, mean",
        "%",
        "",
        "weighted by time, from the first change to the last",
        _each(lambda s: 100 * usage_of(s, 1.0).mean),
    ),
    Metric(
        "kv_evictions",
        "evictions",
        "",
        "lower",
        "evictions of cached content",
        _each(_rows("kv_cache_evictions")),
    ),
    Metric(
        "kv_life_sec",
        "life of evicted content, mean",
        "s",
        "higher",
        "mean of lifetime_sec where it is known",
        _each(_life),
    ),
    Metric(
        "prefix_hit_pct",
        "prefix cache hits",
        "%",
        "higher",
        "prompt tokens found in the prefix cache, of those asked for",
        _each(_hit_rate),
    ),
    Metric(
        "preemptions",
        "preemptions",
        "",
        "lower",
        "requests that had to give back their blocks",
        _each(_rows("kv_preemptions")),
    ),
    Metric(
        "tokens_lost",
        "tokens lost to them",
        "",
        "lower",
        "computed tokens that preempted requests gave up",
        _each(_lost),
    ),
    Metric("steps", "steps", "", "", "model steps with tokens", _each(_steps)),
    Metric("tokens", "tokens run", "", "", "unpadded tokens of all steps", _each(_tokens)),
)

METRICS: dict[str, Metric] = {m.name: m for m in _ROWS}
