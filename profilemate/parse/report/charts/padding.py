"""The sizes that graphs were captured for against the sizes that steps had, and what it wastes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from profilemate.parse.report.base import Chart, Drawing, Field, Grid, Nothing, Spec
from profilemate.parse.report.charts import marks
from profilemate.parse.report.source import Source, floats, plain
from profilemate.parse.report.theme import MODE_NAMES, MODES

MOST_POINTS = 3000


def draw(source: Source) -> Drawing:
    """Above, a circle per pair of sizes; below, real and padding tokens per captured size."""
    frame = source.table("cuda_graph_padding").dropna(subset=["unpadded_tokens", "padded_tokens"])
    on_graphs = frame[frame["runtime_mode"].isin(["FULL", "PIECEWISE"])]
    captured = sorted({int(n) for n in source.table("cuda_graph_captures")["num_tokens"].dropna()})
    if on_graphs.empty:
        raise Nothing(_why(source))
    sizes = _sizes(on_graphs, captured)
    pairs = frame.sort_values("count", ascending=False, kind="stable").iloc[:MOST_POINTS]
    data = {
        "pairs": {
            "unpadded": plain(pairs["unpadded_tokens"]),
            "padded": plain(pairs["padded_tokens"]),
            "waste": plain(pairs["num_paddings"] * pairs["count"]),
            "n": plain(pairs["count"]),
            "mode": [MODE_NAMES.get(m, str(m)) for m in pairs["runtime_mode"]],
        },
        "captured": {"size": captured},
        "tokens": _tokens(sizes),
    }
    padded, waste = int(sizes["padded"].sum()), int(sizes["waste"].sum())
    return Drawing(
        spec=_spec([int(s) for s in sizes["size"]]),
        data=data,
        grid=_grid(sizes),
        says=f"{waste:,} of the {padded:,} tokens that ran on graphs were padding "
        f"({100 * waste / padded if padded else 0:.2f} %).",
        notes=_notes(frame, pairs, sizes, captured),
    )


def _why(source: Source) -> str:
    if source.graphs.empty:
        return source.why_empty("cuda_graph_usage")
    return "The recording does not say how many tokens the graphs were padded to."


def _notes(
    frame: pd.DataFrame, pairs: pd.DataFrame, sizes: pd.DataFrame, captured: list[int]
) -> list[str]:
    notes = ["Circle: steps of one size, larger for more; on the dotted line nothing is wasted."]
    if captured:
        unused = int((sizes["captured"] & (sizes["steps"] == 0)).sum())
        notes.append(f"Ticks on the axis: the {len(captured)} captured sizes, {unused} never used.")
    else:
        notes.append("Captures were not recorded.")
    if len(pairs) < len(frame):
        notes.append(f"The {len(pairs):,} most frequent of {len(frame):,} pairs are drawn.")
    return notes


def _sizes(frame: pd.DataFrame, captured: list[int]) -> pd.DataFrame:
    """One row per size that was captured or used: steps, tokens after padding, and waste."""
    count = frame["count"].astype("int64")
    found = (
        pd.DataFrame(
            {
                "size": frame["padded_tokens"].astype("int64"),
                "steps": count,
                "padded": frame["padded_tokens"].astype("int64") * count,
                "waste": frame["num_paddings"].astype("int64") * count,
            }
        )
        .groupby("size")
        .sum()
    )
    found = found.reindex(sorted({*found.index, *captured}), fill_value=0)
    return found.reset_index().assign(captured=lambda f: f["size"].isin(captured))


def _tokens(sizes: pd.DataFrame) -> dict[str, Any]:
    real = (sizes["padded"] - sizes["waste"]).tolist()
    kinds = ("real tokens", "padding")
    return {
        "size": sizes["size"].tolist() * 2,
        "tokens": real + sizes["waste"].tolist(),
        "kind": [kind for kind in kinds for _ in real],
        "order": [order for order in (0, 1) for _ in real],
    }


def _grid(sizes: pd.DataFrame) -> Grid:
    padded, waste = floats(sizes["padded"]), floats(sizes["waste"])
    share = np.where(padded > 0, 100 * waste / np.where(padded > 0, padded, 1), np.nan)
    return Grid(
        "size that graphs were captured for or run at",
        (
            Field("size", "tokens of the graph", "int"),
            Field("captured", "captured", "text"),
            Field("steps", "steps", "int"),
            Field("padded", "tokens run", "int"),
            Field("waste", "of them padding", "int"),
            Field("share", "padding", "percent"),
        ),
        {
            "size": sizes["size"].tolist(),
            "captured": ["yes" if c else "not recorded" for c in sizes["captured"]],
            "steps": sizes["steps"].tolist(),
            "padded": sizes["padded"].tolist(),
            "waste": sizes["waste"].tolist(),
            "share": plain(share, 3),
        },
    )


def _spec(sizes: list[int]) -> Spec:
    log: Spec = {"type": "log", "base": 2, "nice": False, "padding": 12}
    axis: Spec = {"format": "~d", "tickCount": 8}
    x = marks.quantity("unpadded", "tokens of the step") | {"scale": log, "axis": axis}
    y = marks.quantity("padded", "tokens after padding") | {"scale": log, "axis": axis}
    circles: Spec = {
        "data": {"name": "pairs"},
        "mark": {"type": "circle", "opacity": 0.6, "stroke": "var(--card)", "strokeWidth": 0.5},
        "encoding": {
            "x": x,
            "y": y,
            "size": {
                "field": "n",
                "type": "quantitative",
                "scale": {"range": [14, 500], "zero": True},
                "legend": None,
            },
            "color": {
                "field": "mode",
                "type": "nominal",
                "scale": {
                    "domain": [MODE_NAMES[m] for m in MODES],
                    "range": list(MODES.values()),
                },
            },
            "tooltip": marks.tips(
                ("unpadded", "tokens of the step", ","),
                ("padded", "after padding", ","),
                ("mode", "mode", ""),
                ("n", "steps", ","),
                ("waste", "padding tokens in all", ","),
            ),
        },
    }
    diagonal: Spec = {
        "data": {"name": "pairs"},
        "mark": {"type": "line", "color": "var(--muted)", "strokeDash": [2, 3], "strokeWidth": 1},
        "encoding": {"x": x, "y": y | {"field": "unpadded"}},
    }
    ticks: Spec = {
        "data": {"name": "captured"},
        "mark": {"type": "rule", "color": "var(--ink)", "strokeWidth": 1, "opacity": 0.7},
        "encoding": {"y": y | {"field": "size"}, "x": {"value": 0}, "x2": {"value": 7}},
    }
    bars: Spec = {
        "width": "$W-84",
        "height": 130,
        "data": {"name": "tokens"},
        "mark": {"type": "bar"},
        "encoding": {
            "x": {
                "field": "size",
                "type": "ordinal",
                "sort": sizes,
                "title": "size of the graph (tokens)",
                "axis": {"labelAngle": 0, "ticks": False},
            },
            "y": marks.quantity("tokens", "tokens run") | {"axis": {"format": "~s", "tickCount": 4}},
            "order": {"field": "order"},
            "color": {
                "field": "kind",
                "type": "nominal",
                "scale": {
                    "domain": ["real tokens", "padding"],
                    "range": ["var(--sky)", "var(--red)"],
                },
            },
            "tooltip": marks.tips(
                ("size", "size of the graph", ","), ("kind", "what", ""), ("tokens", "tokens", ",")
            ),
        },
    }
    over = {"width": "$W-84", "height": 300, "layer": [diagonal, ticks, circles]}
    return marks.top({"vconcat": [over, bars], "resolve": {"scale": {"color": "independent"}}})


CHART = Chart(
    "cuda_graph_padding",
    "Captured sizes against the sizes of steps",
    "How much is lost to padding, and which sizes would help?",
    ("cuda_graph_padding.csv", "cuda_graph_captures.csv"),
    draw,
)
