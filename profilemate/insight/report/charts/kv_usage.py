"""KV cache usage over time, with the band that is recommended, evictions and preemptions."""

from __future__ import annotations

from typing import Any

import numpy as np

from profilemate.insight.figures import kv
from profilemate.insight.reading import Floats, floats
from profilemate.insight.report.base import Chart, Drawing, Field, Grid, Nothing, Spec
from profilemate.insight.report.charts import marks
from profilemate.insight.report.source import Source, plain
from profilemate.insight.report.times import extremes, step_means, thin

BAND = (60, 80)
"""Percent: the good balance of the project's specification."""
Y_TITLE = "KV cache usage (%)"
MOST_SINGLE = 400
"""Preemptions that are drawn one by one; more are drawn by interval."""


def draw(source: Source) -> Drawing:
    """Usage as a line of steps, evictions by interval under it."""
    frame = source.table("kv_cache_usage")
    if frame.empty:
        raise Nothing(source.why_empty("kv_cache_usage"))
    times, usage = floats(frame["timestamp_sec"]), floats(frame["usage_pct"])
    kept = thin(times, usage)
    spans = source.intervals
    evicted = floats(source.table("kv_cache_evictions")["timestamp_sec"])
    stopped = floats(source.table("kv_preemptions")["timestamp_sec"])
    evictions, preemptions = spans.count(evicted), spans.count(stopped)
    low, high = extremes(times, usage, spans)
    mean = step_means(times, usage, spans.edges)
    by_interval = {
        "from": plain(spans.begin),
        "to": plain(spans.end),
        "mean": plain(mean, 3),
        "low": plain(low),
        "high": plain(high),
    }
    data = {
        # The file has a row per change: the last value holds to the end.
        "usage": {
            "t": plain([*times[kept], max(source.window[1], times[-1])]),
            "usage": plain([*usage[kept], usage[-1]]),
        },
        "band": {"from": [BAND[0]], "to": [BAND[1]]},
        "intervals": by_interval,
        "evictions": _by_interval(source, evictions),
        "preemptions": _preemptions(source, stopped, preemptions),
    }
    grid = Grid(
        f"{spans.length:g} s of the recording",
        (
            Field("from", "from", "sec"),
            Field("to", "to", "sec"),
            Field("mean", "mean usage", "percent"),
            Field("low", "lowest", "percent"),
            Field("high", "highest", "percent"),
            Field("evictions", "evictions", "int"),
            Field("preemptions", "preemptions", "int"),
        ),
        {
            **by_interval,
            "evictions": plain(evictions.astype(np.int64)),
            "preemptions": plain(preemptions.astype(np.int64)),
        },
    )
    return Drawing(
        spec=_spec(source, evicting=len(evicted) > 0),
        data=data,
        grid=grid,
        says=_says(source),
        notes=_notes(source, len(times), len(kept), len(evicted), len(stopped)),
        over_time=True,
    )


def _says(source: Source) -> str:
    peak = kv.PEAK.value(source.session)
    told = [peak.why] if peak.value is None else [f"Usage peaks at {source.text(kv.PEAK)}"]
    told += [f"{source.text(f)} {f.title}" for f in (kv.EVICTIONS, kv.PREEMPTIONS)]
    return f"{told[0]}; {', '.join(told[1:])}."


def _by_interval(source: Source, counts: Floats) -> dict[str, Any]:
    there = np.flatnonzero(counts)
    spans = source.intervals
    return {
        "from": plain(spans.begin[there]),
        "to": plain(spans.end[there]),
        "n": plain(counts[there].astype(np.int64)),
    }


def _preemptions(source: Source, times: Floats, counts: Floats) -> dict[str, Any]:
    if len(times) <= MOST_SINGLE:
        return {"t": plain(times), "n": [1] * len(times)}
    there = np.flatnonzero(counts)
    middle = (source.intervals.begin + source.intervals.end)[there] / 2
    return {"t": plain(middle), "n": plain(counts[there].astype(np.int64))}


def _notes(source: Source, points: int, drawn: int, evicted: int, stopped: int) -> list[str]:
    length = f"{source.intervals.length:g} s"
    notes = [
        f"Shaded: {BAND[0]} to {BAND[1]} %, a good balance.",
        "The line has the usage after each scheduler step; the peak may lie within one.",
    ]
    if drawn < points:
        notes.append(f"{points:,} points shown as {drawn:,}, extremes kept.")
    if evicted:
        notes.append(f"Bars: evictions in each {length}.")
    if stopped > MOST_SINGLE:
        notes.append(f"A triangle is a {length} with preemptions.")
    elif stopped:
        notes.append("A triangle is a preemption.")
    return notes


def _spec(source: Source, *, evicting: bool) -> Spec:
    x = marks.time_axis(source.window, labelled=not evicting)
    t = x | {"field": "t"}
    line: Spec = {
        "data": {"name": "usage"},
        "params": marks.BRUSH,
        "mark": {"type": "line", "interpolate": "step-after", "clip": True, "strokeWidth": 1.4},
        "encoding": {
            "x": t,
            "y": marks.quantity("usage", Y_TITLE, domain=[0, 112])
            | {"axis": {"values": [0, 20, 40, 60, 80, 100], "minExtent": 34}},
            "color": {"value": "var(--blue)"},
        },
    }
    band: Spec = {
        "data": {"name": "band"},
        "mark": {"type": "rect", "color": "var(--green)", "opacity": 0.14},
        "encoding": {"y": marks.quantity("from", Y_TITLE), "y2": {"field": "to"}},
    }
    triangles: Spec = {
        "data": {"name": "preemptions"},
        "mark": {
            "type": "point",
            "shape": "triangle-down",
            "filled": True,
            "size": 60,
            "color": "var(--purple)",
            "opacity": 0.9,
            "clip": True,
        },
        "encoding": {
            "x": t,
            "y": {"datum": 106},
            "tooltip": marks.tips(("t", "preempted at (s)", ",.3f"), ("n", "preemptions", ",")),
        },
    }
    over: Spec = {
        "width": marks.WIDE,
        "height": 230,
        "layer": [band, line, _hover(t), triangles],
    }
    if not evicting:
        return marks.top(over)
    bars: Spec = {
        "width": marks.WIDE,
        "height": 60,
        "data": {"name": "evictions"},
        "mark": {"type": "bar", "color": "var(--red)", "clip": True, "binSpacing": 0},
        "encoding": {
            "x": marks.time_axis(source.window) | {"field": "from"},
            "x2": {"field": "to"},
            "y": marks.quantity("n", "evictions") | {"axis": marks.counts(tickCount=3)},
            "y2": {"datum": 0},
            "tooltip": marks.tips(
                ("from", "from (s)", ",.3~f"), ("to", "to (s)", ",.3~f"), ("n", "evictions", ",")
            ),
        },
    }
    return marks.top({"vconcat": [over, bars], "spacing": 14})


def _hover(t: Spec) -> Spec:
    """What an interval says when pointed at: far fewer elements than points of the line."""
    return {
        "data": {"name": "intervals"},
        "mark": {"type": "rect", "opacity": 0, "clip": True, "aria": False},
        "encoding": {
            "x": t | {"field": "from"},
            "x2": {"field": "to"},
            "tooltip": marks.tips(
                ("from", "from (s)", ",.3~f"),
                ("to", "to (s)", ",.3~f"),
                ("mean", "mean usage (%)", ".2f"),
                ("low", "lowest (%)", ".2f"),
                ("high", "highest (%)", ".2f"),
            ),
        },
    }


CHART = Chart(
    "kv_cache_usage",
    "KV cache usage over time",
    "Is the cache over- or under-provisioned, and does it run full?",
    ("kv_cache_usage.csv", "kv_cache_evictions.csv", "kv_preemptions.csv"),
    draw,
    needs={
        "kv_cache_usage": ("timestamp_sec", "usage_pct"),
        "kv_cache_evictions": ("timestamp_sec",),
        "kv_preemptions": ("timestamp_sec",),
    },
)
