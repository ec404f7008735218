"""The ranks of a run side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from profilemate.insight.figures import kv, steps
from profilemate.insight.figures.base import rank_name, ranked
from profilemate.insight.reading import Floats, floats
from profilemate.insight.report.base import Chart, Drawing, Field, Grid, Nothing, Spec
from profilemate.insight.report.charts import marks
from profilemate.insight.report.charts.graph_latency import SHAPE, panel
from profilemate.insight.report.source import Source, plain
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables.step_rows import on_graphs

PANELS = {
    "host": ("model execution, host (ms)", "var(--blue)"),
    "gpu": ("GPU span of a graph step (ms)", "var(--green)"),
}
_STEPS = (*steps.COUNTING, "runtime_mode", "host_ms", "graph_gpu_ms")
_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
_FIGURES = {
    "steps": steps.STEPS,
    "graph_pct": steps.GRAPH_STEPS,
    "peak_pct": kv.PEAK,
    "evictions": kv.EVICTIONS,
    "preemptions": kv.PREEMPTIONS,
}


def draw(source: Source) -> Drawing:
    """Percentiles of a step per rank, and the totals of each in the table."""
    further = source.session.ranks()
    if not further:
        raise Nothing("The session has one rank.")
    rows = [_row(rank) for rank in (source.session, *further.values())]
    columns: dict[str, Any] = {name: plain([r[name] for r in rows]) for name in rows[0]}
    known = [p for p in PANELS if any(v is not None for v in columns[f"{p}_p50_ms"])]
    fields = [
        Field("label", "rank", "text"),
        Field("steps", "steps", "int"),
        Field("graph_pct", "on graphs", "percent"),
        *(
            Field(f"{p}_{s}_ms", f"{'host' if p == 'host' else 'GPU span'} {s}", "ms")
            for p in PANELS
            for s in _PERCENTILES
        ),
        Field("peak_pct", "peak KV usage", "percent"),
        Field("evictions", "evictions", "int"),
        Field("preemptions", "preemptions", "int"),
    ]
    for field, values in _compared(source, columns["label"]).items():
        fields.append(field)
        columns[field.name] = values
    names = columns["label"]
    notes = [SHAPE, "Ranks without KV figures share the engine of another."]
    if not known:
        raise Nothing("The ranks' steps have no times.")
    return Drawing(
        spec=_spec(known, names),
        data={"ranks": columns},
        grid=Grid("rank", tuple(fields), columns),
        says=_says(columns, known),
        notes=notes,
        columns=len(known),
    )


_COMPARED = (
    Field("host", "host", "text"),
    Field("clock_offset_ms", "clock offset", "ms"),
    Field("replay_p50_ms", "replay p50", "ms"),
    Field("replay_ratio", "to the median rank", "number"),
)


def _compared(source: Source, names: list[str]) -> dict[Field, list[Any]]:
    """What ranks.csv says of the workers, of sessions that have one."""
    frame = source.table("ranks")
    if frame.empty:
        return {}
    workers = frame[frame["role"].astype("string").str.contains("worker", na=False)]
    workers = workers.drop_duplicates("rank").set_index("rank").reindex(names)
    return {field: plain(workers[field.name]) for field in _COMPARED}


def _says(columns: dict[str, Any], known: list[str]) -> str:
    part = known[-1]
    medians = [
        (v, n) for v, n in zip(columns[f"{part}_p50_ms"], columns["label"], strict=True) if v
    ]
    if not medians:
        return f"{len(columns['label'])} ranks."
    (low, fast), (high, slow) = min(medians), max(medians)
    what = PANELS[part][0].removesuffix(" (ms)")
    return (
        f"{len(columns['label'])} ranks. Median of {what}: from {low:.3f} ms ({fast}) to "
        f"{high:.3f} ms ({slow})."
    )


def _row(session: SavedSession) -> dict[str, Any]:
    host: list[Floats] = []
    gpu: list[Floats] = []
    for piece in session.chunks("cuda_graph_steps", _STEPS):
        piece = piece[steps.counting(piece)]
        graph = on_graphs(piece["runtime_mode"])
        host.append(floats(piece["host_ms"]))
        gpu.append(floats(piece["graph_gpu_ms"])[graph])
    return {
        "label": rank_name(session),
        **{name: figure.value(session).value for name, figure in _FIGURES.items()},
        **_percentiles("host", host),
        **_percentiles("gpu", gpu),
    }


def _percentiles(part: str, pieces: list[Floats]) -> dict[str, float | None]:
    values = np.concatenate(pieces) if pieces else np.zeros(0)
    values = values[~np.isnan(values)]
    return {f"{part}_{s}_ms": ranked(values, percent) for s, percent in _PERCENTILES.items()}


def _spec(known: list[str], names: list[str]) -> Spec:
    width = marks.width_of(len(known))
    panels = [
        {"width": width, **panel(p, *PANELS[p], names, i, False, "rank")}
        for i, p in enumerate(known)
    ]
    return marks.top({"columns": "$C", "data": {"name": "ranks"}, "concat": panels})


CHART = Chart(
    "ranks",
    "Ranks side by side",
    "Does one rank hold up the others?",
    ("ranks.csv", "ranks/"),
    draw,
    needs={
        "ranks": ("rank", "role"),
        "cuda_graph_steps": tuple(_STEPS),
        "kv_cache_usage": ("usage_pct",),
    },
)
