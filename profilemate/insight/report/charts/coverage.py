"""Which runtime mode the model steps ran in, over time."""

from __future__ import annotations

from typing import Any

import numpy as np

from profilemate.insight.figures.steps import COUNTING
from profilemate.insight.reading import Floats, floats
from profilemate.insight.report.base import Chart, Drawing, Field, Grid, Nothing, Spec
from profilemate.insight.report.charts import marks
from profilemate.insight.report.source import Source, plain
from profilemate.insight.report.theme import MODE_NAMES, MODES
from profilemate.schema.modes import on_graph


def draw(source: Source) -> Drawing:
    """The share of each mode in the steps of each interval."""
    steps = source.steps
    mode = steps["runtime_mode"].to_numpy(dtype=object, na_value="")
    if not len(steps):
        raise Nothing(source.why_empty("cuda_graph_steps"))
    if not np.isin(mode, list(MODES)).any():
        raise Nothing("The recording does not say in which mode the steps ran.")
    times, spans = floats(steps["timestamp_sec"]), source.intervals
    counts = {m: spans.count(times[mode == m]) for m in MODES}
    total = np.sum(list(counts.values()), axis=0)
    on_graphs = np.sum([c for m, c in counts.items() if on_graph(m)], axis=0)
    share = np.where(total > 0, 100 * on_graphs / np.where(total > 0, total, 1), np.nan)
    fields = [Field("from", "from", "sec"), Field("to", "to", "sec")]
    fields += [Field(m, f"steps {MODE_NAMES[m]}", "int") for m in MODES]
    grid = Grid(
        f"{spans.length:g} s of the recording",
        (*fields, Field("share", "steps on graphs", "percent")),
        {
            "from": plain(spans.begin),
            "to": plain(spans.end),
            **{m: plain(c.astype(np.int64)) for m, c in counts.items()},
            "share": plain(share, 3),
        },
    )
    unknown = int((~np.isin(mode, list(MODES))).sum())
    parts = [
        f"{100 * c.sum() / total.sum():.1f} % {MODE_NAMES[m]}" for m, c in counts.items() if c.any()
    ]
    return Drawing(
        spec=_spec(source, [m for m in MODES if counts[m].any()]),
        data={"shares": _bars(source, counts, total)},
        grid=grid,
        says=f"Of {int(total.sum()):,} model steps: {', '.join(parts)}.",
        notes=[f"A bar is {spans.length:g} s, by the begin of the steps."]
        + ([f"{unknown:,} steps whose mode is not known are left out."] if unknown else []),
        over_time=True,
    )


def _bars(source: Source, counts: dict[str, Floats], total: Floats) -> dict[str, Any]:
    spans = source.intervals
    columns: dict[str, list[Any]] = {n: [] for n in ("from", "to", "mode", "y0", "y1", "n")}
    base = np.zeros(len(spans))
    for mode, count in counts.items():
        there = np.flatnonzero(count)
        above = base.copy()
        above[there] += 100 * count[there] / total[there]
        columns["from"] += plain(spans.begin[there])
        columns["to"] += plain(spans.end[there])
        columns["mode"] += [MODE_NAMES[mode]] * len(there)
        columns["y0"] += plain(base[there], 3)
        columns["y1"] += plain(above[there], 3)
        columns["n"] += plain(count[there].astype(np.int64))
        base = above
    return columns


def _spec(source: Source, modes: list[str]) -> Spec:
    x = marks.time_axis(source.window)
    names = [MODE_NAMES[m] for m in modes]
    return marks.top(
        {
            "width": marks.WIDE,
            "height": 150,
            "data": {"name": "shares"},
            "params": marks.BRUSH,
            "mark": {"type": "bar", "clip": True, "binSpacing": 0},
            "encoding": {
                "x": x | {"field": "from"},
                "x2": {"field": "to"},
                "y": marks.quantity("y0", "share of steps (%)", domain=[0, 100]),
                "y2": {"field": "y1"},
                "color": {
                    "field": "mode",
                    "type": "nominal",
                    "scale": {"domain": names, "range": [MODES[m] for m in modes]},
                },
                "tooltip": marks.tips(
                    ("from", "from (s)", ",.3~f"),
                    ("to", "to (s)", ",.3~f"),
                    ("mode", "mode", ""),
                    ("n", "steps", ","),
                ),
            },
        }
    )


CHART = Chart(
    "cuda_graph_coverage",
    "Coverage by mode over time",
    "Do most steps run on CUDA graphs, and when do they not?",
    ("cuda_graph_steps.csv", "cuda_graph_coverage.csv"),
    draw,
    needs={"cuda_graph_steps": ("timestamp_sec", "runtime_mode", *COUNTING)},
)
