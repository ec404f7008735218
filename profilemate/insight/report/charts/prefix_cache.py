"""Prefix-cache hit rate over time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from profilemate.insight.figures import kv
from profilemate.insight.reading import Floats, floats
from profilemate.insight.report.base import Chart, Drawing, Field, Grid, Nothing, Spec
from profilemate.insight.report.charts import marks
from profilemate.insight.report.source import Source, plain
from profilemate.insight.report.times import Intervals, thin
from profilemate.parse.tables.kv_requests import hit_rate, lookups


def draw(source: Source) -> Drawing:
    """The rate so far as a line, the rate of each interval as bars."""
    frame = source.table("kv_prefix_cache")
    if frame.empty:
        raise Nothing(source.why_empty("kv_prefix_cache"))
    counted, spans = lookups(frame), source.intervals
    at, times = floats(counted["timestamp_sec"]), floats(frame["timestamp_sec"])
    asked, found = (
        spans.count(at, np.nan_to_num(floats(counted[name]))) for name in ("tokens", "hit_tokens")
    )
    rates = [hit_rate(*pair) for pair in zip(asked.tolist(), found.tolist(), strict=True)]
    rate = 100 * np.array(rates, dtype=np.float64)
    running = 100 * floats(frame["running_hit_rate"])
    known = np.flatnonzero(~np.isnan(running))
    kept = known[thin(times[known], running[known])]
    there = np.flatnonzero(asked)
    data = {
        "rates": {
            "from": plain(spans.begin[there]),
            "to": plain(spans.end[there]),
            "rate": plain(rate[there], 3),
            "asked": plain(asked[there].astype(np.int64)),
            "hit": plain(found[there].astype(np.int64)),
        },
        "running": {"t": plain(times[kept]), "rate": plain(running[kept], 3)},
    }
    by_interval = {"lookups": spans.count(at), "asked": asked, "hit": found}
    notes = [f"Bars: of each {spans.length:g} s. Line: since the start, as vLLM counts."]
    if again := len(frame) - len(counted):
        notes.append(f"{again:,} look-ups of preempted requests are left out, as there.")
    if len(kept) < len(known):
        notes.append(f"{len(known):,} points shown as {len(kept):,}, extremes kept.")
    return Drawing(
        spec=_spec(source),
        data=data,
        grid=_grid(spans, by_interval, rate),
        says=_says(source),
        notes=notes,
        over_time=True,
    )


def _says(source: Source) -> str:
    rate = kv.HIT_RATE.value(source.session)
    share = rate.why if rate.value is None else source.text(kv.HIT_RATE)
    found, asked = source.text(kv.FOUND), source.text(kv.ASKED)
    return f"{found} of {asked} tokens asked for were found in the prefix cache ({share})."


def _grid(spans: Intervals, counts: Mapping[str, Floats], rate: Floats) -> Grid:
    return Grid(
        f"{spans.length:g} s of the recording",
        (
            Field("from", "from", "sec"),
            Field("to", "to", "sec"),
            Field("lookups", "look-ups", "int"),
            Field("asked", "tokens asked", "int"),
            Field("hit", "tokens hit", "int"),
            Field("rate", "hit rate", "percent"),
        ),
        {
            "from": plain(spans.begin),
            "to": plain(spans.end),
            **{name: plain(values.astype(np.int64)) for name, values in counts.items()},
            "rate": plain(rate, 3),
        },
    )


def _spec(source: Source) -> Spec:
    x = marks.time_axis(source.window)
    y = marks.quantity("rate", "hit rate (%)", domain=[0, 100])
    bars: Spec = {
        "data": {"name": "rates"},
        "params": marks.BRUSH,
        "mark": {"type": "bar", "color": "var(--sky)", "opacity": 0.65, "clip": True},
        "encoding": {
            "x": x | {"field": "from"},
            "x2": {"field": "to"},
            "y": y,
            "y2": {"datum": 0},
            "tooltip": marks.tips(
                ("from", "from (s)", ",.3~f"),
                ("to", "to (s)", ",.3~f"),
                ("asked", "tokens asked", ","),
                ("hit", "tokens hit", ","),
                ("rate", "hit rate (%)", ".2f"),
            ),
        },
    }
    line: Spec = {
        "data": {"name": "running"},
        "mark": {"type": "line", "interpolate": "step-after", "clip": True, "strokeWidth": 1.8},
        "encoding": {"x": x | {"field": "t"}, "y": y, "color": {"value": "var(--blue)"}},
    }
    return marks.top({"width": marks.WIDE, "height": 180, "layer": [bars, line]})


CHART = Chart(
    "kv_prefix_cache",
    "Prefix-cache hit rate over time",
    "Does prefix caching work, and from when on?",
    ("kv_prefix_cache.csv",),
    draw,
    needs={
        "kv_prefix_cache": (
            "timestamp_sec",
            "preempted",
            "tokens",
            "hit_tokens",
            "running_hit_rate",
        )
    },
)
