"""Graph by graph: the latency of two sessions, and what of the difference is more than noise."""

from __future__ import annotations

from typing import Any

from profilemate.insight.compare import DURATIONS, FALSE_ALARMS, Comparison, GraphRow, Graphs
from profilemate.insight.compare.spelled import all_graphs
from profilemate.insight.report.base import Drawing, Drawn, Field, Grid, Spec, Titled
from profilemate.insight.report.charts import marks

MOST_DRAWN = 60
"""Rows of the picture; the table has all."""

VERDICTS = {
    "slower": ("slower", "var(--red)", "triangle-right"),
    "faster": ("faster", "var(--green)", "triangle-left"),
    "same": ("within noise", "var(--grey)", "circle"),
    "few": ("too few steps", "var(--grey)", "cross"),
    "only A": ("only A", "var(--grey)", "circle"),
    "only B": ("only B", "var(--grey)", "square"),
}
"""Outcome to its words, colour and symbol: colour is not the only way to tell."""

TITLED = Titled(
    "compare_graphs",
    "Latency of each CUDA graph, A and B",
    "Which graphs take longer in B, and is it more than noise?",
    (),
)
_FIELDS = (
    Field("label", "graph", "text"),
    Field("steps_a", "steps A", "int"),
    Field("steps_b", "steps B", "int"),
    Field("p50_a", "p50 A", "ms"),
    Field("p50_b", "p50 B", "ms"),
    Field("change", "change", "change"),
    Field("q", "q-value", "chance"),
    Field("verdict", "verdict", "verdict"),
    Field("longer", "B longer", "percent"),
    Field("p99_a", "p99 A", "ms"),
    Field("p99_b", "p99 B", "ms"),
)


def draw(found: Comparison) -> Drawn:
    """The chart and its table, or why there is neither."""
    graphs = found.graphs
    if not graphs.rows:
        return Drawn(TITLED, why="There is no duration of steps on graphs that both sessions have.")
    shown = _shown(graphs.rows)
    notes = [
        f"Compared is the {DURATIONS[graphs.duration]}. Ring: median of A. Symbol: median of B.",
        f"Slower and faster are more than noise: q < {FALSE_ALARMS:g}, after a rank test corrected "
        "for the number of graphs.",
    ]
    if len(shown) < len(graphs.rows):
        notes.append(
            f"{len(shown)} of {len(graphs.rows)} graphs are drawn: those that are slower or "
            "faster first, then those with most steps."
        )
    spec = _spec(shown)
    drawing = Drawing(
        spec=spec,
        data={"graphs": _columns(shown)},
        grid=Grid("CUDA graph of either session", _FIELDS, _columns(graphs.rows)),
        says=_says(graphs),
        notes=notes,
        columns=len(spec["concat"]),
    )
    return Drawn(TITLED, drawing)


def _shown(rows: list[GraphRow]) -> list[GraphRow]:
    """Those to draw, in their order: what is slower or faster is never left out for the rest."""
    first = sorted(range(len(rows)), key=lambda i: rows[i].outcome not in ("slower", "faster"))
    return [rows[i] for i in sorted(first[:MOST_DRAWN])]


def _columns(rows: list[GraphRow]) -> dict[str, list[Any]]:
    return {
        "label": [r.graph for r in rows],
        "steps_a": [r.steps[0] for r in rows],
        "steps_b": [r.steps[1] for r in rows],
        "p50_a": [r.p50[0] for r in rows],
        "p50_b": [r.p50[1] for r in rows],
        "change": [_percent(r.change) for r in rows],
        "p99_a": [r.p99[0] for r in rows],
        "p99_b": [r.p99[1] for r in rows],
        "longer": [_percent(r.longer) for r in rows],
        "q": [r.q for r in rows],
        "verdict": [VERDICTS[r.outcome][0] for r in rows],
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _says(graphs: Graphs) -> str:
    count = {name: sum(r.outcome == name for r in graphs.rows) for name in VERDICTS}
    told = [f"{n} {VERDICTS[name][0]}" for name, n in count.items() if n]
    together = all_graphs(graphs)
    return f"{', '.join(told)}." + (f" All graphs: {together}." if together else "")


def _spec(rows: list[GraphRow]) -> Spec:
    names = [r.graph for r in rows]
    known = [v for r in rows for v in r.p50 if v is not None]
    log = all(v > 0 for v in known)
    panels = [_latency(names, log, rows)]
    if any(r.change is not None for r in rows):
        panels.append(_change(names))
    width = marks.width_of(len(panels))
    panels = [{"width": width, **panel} for panel in panels]
    spec: Spec = {"columns": "$C", "data": {"name": "graphs"}, "concat": panels}
    spec["resolve"] = {
        "scale": {"color": "independent", "shape": "independent"}
    }  # the legend of one serves both
    return marks.top(spec)


def _verdict(channel: int, outcomes: set[str] | None = None) -> Spec:
    """A channel by verdict; with a legend of these outcomes, without any if there are none."""
    there = [v for v in VERDICTS if outcomes is None or v in outcomes]
    words = [VERDICTS[v][0] for v in there]
    told = [w for w in words if w != VERDICTS["only A"][0]]  # it has no symbol, only the ring
    return {
        "field": "verdict",
        "type": "nominal",
        "scale": {"domain": words, "range": [VERDICTS[v][channel] for v in there]},
        "legend": {"values": told, "columns": 3, "symbolOpacity": 1} if outcomes else None,
    }


_TIPS = (
    ("label", "graph", ""),
    ("p50_a", "p50 A (ms)", ",.3f"),
    ("p50_b", "p50 B (ms)", ",.3f"),
    ("change", "change (%)", "+,.1f"),
    ("steps_a", "steps A", ","),
    ("steps_b", "steps B", ","),
    ("q", "q-value", ".3~g"),
    ("verdict", "verdict", ""),
)


def _latency(names: list[str], log: bool, rows: list[GraphRow]) -> Spec:
    """A ring for A, a symbol for B, a line between them."""
    axis = {"title": "median latency (ms)", "tickCount": 5, "format": ",.6~f"}
    axis |= {"labelOverlap": "greedy", "labelSeparation": 8}
    x: Spec = {
        "type": "quantitative",
        "scale": {"type": "log", "nice": False, "padding": 12} if log else {"zero": False},
        "axis": axis,
    }
    shared = {"y": marks.by_row(names, 0), "tooltip": marks.tips(*_TIPS)}
    outcomes: set[str] = {r.outcome for r in rows}
    line: Spec = {
        "transform": [{"filter": "isValid(datum.p50_a) && isValid(datum.p50_b)"}],
        "mark": {"type": "rule", "strokeWidth": 2.5, "opacity": 0.55},
        "encoding": {
            "x": {"field": "p50_a", **x},
            "x2": {"field": "p50_b"},
            "color": _verdict(1, outcomes),
            **shared,
        },
    }
    of_a: Spec = {
        "transform": [{"filter": "isValid(datum.p50_a)"}],
        "mark": {"type": "circle", "size": 62, "fill": "var(--card)", "opacity": 1}
        | {"stroke": "var(--ink)", "strokeWidth": 1.5},
        "encoding": {"x": {"field": "p50_a", **x}, **shared},
    }
    of_b: Spec = {
        "transform": [{"filter": "isValid(datum.p50_b)"}],
        "mark": {"type": "point", "size": 80, "filled": True, "opacity": 1},
        "encoding": {
            "x": {"field": "p50_b", **x},
            "color": _verdict(1, outcomes),
            "shape": _verdict(2, outcomes),
            **shared,
        },
    }
    # A layer without data has no extent, and Vega says so in the console.
    a, b = (any(r.p50[i] is not None for r in rows) for i in (0, 1))
    common = any(None not in r.p50 for r in rows)
    layers = [layer for layer, told in ((line, common), (of_a, a), (of_b, b)) if told]
    return {"height": {"step": 19}, "layer": layers}


def _change(names: list[str]) -> Spec:
    """The same relative to A, a bar each."""
    return {
        "height": {"step": 19},
        "transform": [{"filter": "isValid(datum.change)"}],
        "mark": {"type": "bar", "height": 10},
        "encoding": {
            "x": {
                "field": "change",
                "type": "quantitative",
                "axis": {
                    "title": "change of the median, B to A (%)",
                    "format": "+,~f",
                    "tickCount": 6,
                },
            },
            "y": marks.by_row(names, 1) | {"scale": {"domain": names}},
            "color": _verdict(1),
            "tooltip": marks.tips(*_TIPS),
        },
    }
