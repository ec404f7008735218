"""Replay latency per CUDA graph: launch on the host, delay until the GPU starts, GPU span."""

from __future__ import annotations

from typing import Any

import numpy as np

from profilemate.insight.reading import floats
from profilemate.insight.report.base import Chart, Drawing, Field, Grid, Nothing, Spec
from profilemate.insight.report.charts import marks
from profilemate.insight.report.charts.graph_usage import MOST_DRAWN
from profilemate.insight.report.source import Source, plain

PANELS = {
    "launch": ("host launch (ms)", "var(--blue)"),
    "delay": ("launch to GPU start (ms)", "var(--orange)"),
    "gpu_span": ("GPU span (ms)", "var(--green)"),
}
STATISTICS = {"mean": "mean", "p50": "p50", "p90": "p90", "p99": "p99", "max": "max"}
SHAPE = "Tick: median. Bar: p50 to p90. Line: to p99. Circle: largest."


def draw(source: Source) -> Drawing:
    """A bar, a line and a circle per graph, in a panel for each part that is known."""
    graphs = source.graphs
    if graphs.empty:
        raise Nothing(source.why_empty("cuda_graph_replay_latency"))
    known = [part for part in PANELS if graphs[f"{part}_p50_ms"].notna().any()]
    if not known:
        raise Nothing("The recording has no times of graph launches.")
    drawn = min(len(graphs), MOST_DRAWN)
    names = graphs["label"].tolist()
    columns: dict[str, Any] = {"label": names, "steps": plain(graphs["steps"])}
    fields = [Field("label", "graph", "text"), Field("steps", "steps", "int")]
    for part in known:
        for statistic in STATISTICS:
            name = f"{part}_{statistic}_ms"
            columns[name] = plain(graphs[name])
            fields.append(Field(name, f"{part.replace('_', ' ')} {statistic}", "ms"))
    logs = {part: _positive(source, part) for part in known}
    missing = [PANELS[p][0].removesuffix(" (ms)") for p in PANELS if p not in known]
    notes = [SHAPE]
    if drawn < len(graphs):
        notes.append(f"The {drawn} most replayed of {len(graphs)} are drawn.")
    if missing:
        notes.append(f"Not recorded: {', '.join(missing)}.")
    return Drawing(
        spec=_spec(known, names[:drawn], logs),
        data={"graphs": {name: column[:drawn] for name, column in columns.items()}},
        grid=Grid("replayed CUDA graph", tuple(fields), columns),
        says=_says(source, known),
        notes=notes,
        columns=len(known),
    )


def _positive(source: Source, part: str) -> bool:
    """Whether a logarithmic axis can show it."""
    values = np.concatenate([floats(source.graphs[f"{part}_{s}_ms"]) for s in ("p50", "max")])
    return bool((values[~np.isnan(values)] > 0).all())


def _says(source: Source, known: list[str]) -> str:
    first = source.graphs.iloc[0]
    parts = [
        f"{PANELS[p][0].removesuffix(' (ms)')} {float(first[f'{p}_p50_ms']):.3f} ms"
        for p in known
        if first[f"{p}_p50_ms"] == first[f"{p}_p50_ms"]
    ]
    return f"Medians of the most replayed graph, {first['label']}: {', '.join(parts)}."


def _spec(known: list[str], names: list[str], logs: dict[str, bool]) -> Spec:
    width = marks.width_of(len(known))
    panels = [
        {"width": width, **panel(part, *PANELS[part], names, i, logs[part], "graph")}
        for i, part in enumerate(known)
    ]
    return marks.top({"columns": "$C", "data": {"name": "graphs"}, "concat": panels})


def panel(
    part: str, title: str, colour: str, names: list[str], place: int, log: bool, row: str
) -> Spec:
    """Percentiles of one quantity, a row for each name."""
    scale: Spec = {"type": "log", "nice": False, "padding": 8} if log else {"zero": False}
    x: Spec = {
        "field": f"{part}_p50_ms",
        "type": "quantitative",
        "scale": scale,
        "axis": {
            "title": title,
            "tickCount": 4,
            "format": ",.6~f",
            "labelOverlap": "greedy",
            "labelSeparation": 8,
        },
    }
    y = marks.by_row(names, place)
    tooltip = marks.tips(
        ("label", row, ""),
        ("steps", "steps", ","),
        *((f"{part}_{s}_ms", f"{s} (ms)", ",.3f") for s in ("p50", "p90", "p99", "max")),
    )
    shared = {"y": y, "tooltip": tooltip}
    return {
        "height": {"step": 18},
        "layer": [
            {
                "mark": {"type": "rule", "color": colour, "strokeWidth": 1.5},
                "encoding": {"x": x, "x2": {"field": f"{part}_p99_ms"}, **shared},
            },
            {
                "mark": {"type": "bar", "color": colour, "height": 10, "opacity": 0.55},
                "encoding": {"x": x, "x2": {"field": f"{part}_p90_ms"}, **shared},
            },
            {
                "mark": {"type": "point", "color": colour, "size": 28, "filled": False},
                "encoding": {"x": x | {"field": f"{part}_max_ms"}, **shared},
            },
            {
                "mark": {"type": "tick", "color": "var(--ink)", "thickness": 2, "size": 13},
                "encoding": {"x": x, **shared},
            },
        ],
    }


CHART = Chart(
    "cuda_graph_replay_latency",
    "Replay latency of each CUDA graph",
    "What does a replay cost on the host, how long until the GPU starts, how long does it run?",
    ("cuda_graph_replay_latency.csv", "cuda_graph_timeline.csv"),
    draw,
    needs={"cuda_graph_replay_latency": ("runtime_mode", "num_tokens", "steps")},
)
