"""The figures on top of the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from profilemate.parse.report.source import Source, floats
from profilemate.parse.report.times import step_means


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: what, how much, and a line to put it into place."""

    name: str
    value: str
    below: str = ""


UNKNOWN = "\N{EN DASH}"


def headline(source: Source) -> list[Figure]:
    """What a reader wants to know first; what the recording cannot tell says so."""
    return [
        _recorded(source),
        *_graphs(source),
        *_kv(source),
    ]


def short(number: float) -> str:
    """A count in at most five characters: 999, 12.3k, 4.56M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if number >= size:
            scaled = number / (1e3 if unit == "k" else size)
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{unit}"
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """A stretch of time for people."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60, 1)
    return f"{minutes:g} min" if minutes < 120 else f"{seconds / 3600:.3g} h"


def _recorded(source: Source) -> Figure:
    begin, end = source.window
    steps = len(source.steps)
    tokens = floats(source.steps["unpadded_tokens"])
    below = f"{short(steps)} model steps" if steps else "no model steps"
    if steps and not np.isnan(tokens).all():
        below += f", {short(float(np.nansum(tokens)))} tokens"
    return Figure("recorded", duration(end - begin), below)


def _total(frame: pd.DataFrame, column: str, rows: pd.Series | None = None) -> float | None:
    """The sum of the known values, None where there is none."""
    part = frame[column] if rows is None else frame.loc[rows, column]
    values = floats(part)
    return None if np.isnan(values).all() else float(np.nansum(values))


def _graphs(source: Source) -> list[Figure]:
    coverage, graphs = source.table("cuda_graph_coverage"), source.graphs
    if coverage.empty:
        return [Figure("steps on CUDA graphs", UNKNOWN, "no steps were recorded")]
    on = coverage["runtime_mode"].isin(["FULL", "PIECEWISE"])
    steps, all_steps = _total(coverage, "steps", on) or 0.0, _total(coverage, "steps") or 0.0
    share = f"{100 * steps / all_steps:.1f} %" if all_steps else UNKNOWN
    gpu = _total(coverage, "gpu_graph_share", on)
    below = f"{100 * gpu:.1f} % of GPU time" if gpu is not None else "GPU time not recorded"
    captured, never = (_first(coverage, n, on) for n in ("graphs_captured", "graphs_never_replayed"))
    of = f"of {captured:g} captured" if captured else "captures not recorded"
    of += f", {never:g} never replayed" if captured and never is not None else ""
    padded, waste = (_total(coverage, n, on) for n in ("padded_tokens", "padding_tokens"))
    wasted = f"{100 * (waste or 0) / padded:.2f} %" if padded else UNKNOWN
    tokens = f"{short(waste or 0)} of {short(padded)} tokens" if padded else "no padded steps known"
    return [
        Figure("steps on CUDA graphs", share, below),
        Figure("graphs replayed", str(len(graphs)), of),
        Figure("padding on graphs", wasted, tokens),
    ]


def _first(coverage: pd.DataFrame, column: str, on: pd.Series) -> float | None:
    return _total(coverage, column, on)


def _kv(source: Source) -> list[Figure]:
    usage = source.table("kv_cache_usage")
    if usage.empty:
        why = "not recorded"
        return [Figure("peak KV usage", UNKNOWN, why), Figure("prefix hit rate", *_hits(source))]
    times, percent = floats(usage["timestamp_sec"]), floats(usage["usage_pct"])
    mean = step_means(times, percent, np.array([times[0], max(source.window[1], times[-1])]))[0]
    average = "" if np.isnan(mean) else f"{mean:.1f} % on average, "
    blocks = f"{int(usage['total_blocks'].max()):,} blocks"
    evictions = source.table("kv_cache_evictions")
    lifetime = floats(evictions["lifetime_sec"])
    known = lifetime[~np.isnan(lifetime)]
    lived = f"lived {duration(float(known.mean()))} on average" if len(known) else ""
    preemptions = source.table("kv_preemptions")
    lost = _total(preemptions, "tokens_lost")
    return [
        Figure("peak KV usage", f"{percent.max():.1f} %", average + blocks),
        Figure("evictions", short(len(evictions)), lived or "of cached blocks"),
        Figure(
            "preemptions",
            short(len(preemptions)),
            f"{short(lost)} tokens lost" if lost is not None else "no request had to stop",
        ),
        Figure("prefix hit rate", *_hits(source)),
    ]


def _hits(source: Source) -> tuple[str, str]:
    lookups = source.table("kv_prefix_cache")
    if lookups.empty:
        return UNKNOWN, "no look-ups were recorded"
    last = lookups.iloc[-1]
    asked, hit = float(last["running_queries"]), float(last["running_hits"])
    if not asked:
        return UNKNOWN, "no tokens were asked for"
    return f"{100 * hit / asked:.1f} %", f"{short(hit)} of {short(asked)} tokens"
