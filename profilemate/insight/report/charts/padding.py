"""The sizes that graphs were captured for against the sizes that steps had, and what it wastes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from profilemate.insight.figures.graphs import (
    PADDED_TOKENS,
    PADDING,
    PADDING_TOKENS,
    captured_sizes,
    padded_steps,
)
from profilemate.insight.reading import NoData, floats
from profilemate.insight.report.base import Chart, Drawing, Field, Grid, Nothing, Spec
from profilemate.insight.report.charts import marks
from profilemate.insight.report.source import Source, plain
from profilemate.insight.report.theme import MODE_NAMES, MODES

MOST_POINTS = 3000
Y_TITLE = "padding per step (tokens)"


def draw(source: Source) -> Drawing:
    """Above, a circle per pair of sizes; below, the padding of all steps per captured size."""
    try:
        on_graphs = padded_steps(source.session).frame
    except NoData:
        raise Nothing(_why(source)) from None
    captured = list(captured_sizes(source.session))
    sizes = _sizes(on_graphs, captured)
    pairs = on_graphs.sort_values("count", ascending=False, kind="stable").iloc[:MOST_POINTS]
    data = {
        "pairs": {
            "unpadded": plain(pairs["unpadded_tokens"]),
            "padded": plain(pairs["padded_tokens"]),
            "each": plain(pairs["num_paddings"]),
            "waste": plain(pairs["num_paddings"] * pairs["count"]),
            "n": plain(pairs["count"]),
            "mode": [MODE_NAMES.get(m, str(m)) for m in pairs["runtime_mode"]],
        },
        "captured": {"size": captured},
        "sizes": {name: sizes[name].tolist() for name in ("size", "steps", "padded", "waste")},
    }
    return Drawing(
        spec=_spec(
            [int(s) for s in sizes["size"]],
            [m for m in MODES if (on_graphs["runtime_mode"] == m).any()],
        ),
        data=data,
        grid=_grid(sizes),
        says=f"{source.text(PADDING_TOKENS)} of the {source.text(PADDED_TOKENS)} tokens that ran "
        f"on graphs were padding ({source.text(PADDING)}).",
        notes=_notes(on_graphs, pairs, sizes, captured),
    )


def _why(source: Source) -> str:
    if source.graphs.empty:
        return source.why_empty("cuda_graph_usage")
    return "The recording does not say how many tokens the graphs were padded to."


def _notes(
    frame: pd.DataFrame, pairs: pd.DataFrame, sizes: pd.DataFrame, captured: list[int]
) -> list[str]:
    notes = ["A circle is all steps of one size, larger for more. Eager steps are not padded."]
    if captured:
        unused = int((sizes["captured"] & (sizes["steps"] == 0)).sum())
        notes.append(f"Ticks at the top: the {len(captured)} captured sizes, {unused} never used.")
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


def _spec(sizes: list[int], modes: list[str]) -> Spec:
    x = marks.quantity("unpadded", "tokens of the step")
    x |= {"scale": {"type": "log", "base": 2, "nice": False, "padding": 12}}
    x |= {"axis": {"format": "~d", "tickCount": 8, "grid": False}}
    circles: Spec = {
        "data": {"name": "pairs"},
        "mark": {"type": "circle", "opacity": 0.6, "stroke": "var(--card)", "strokeWidth": 0.5},
        "encoding": {
            "x": x,
            "y": marks.quantity("each", Y_TITLE),
            "size": {
                "field": "n",
                "type": "quantitative",
                "scale": {"range": [16, 420], "zero": True},
                "legend": None,
            },
            "color": {
                "field": "mode",
                "type": "nominal",
                "scale": {
                    "domain": [MODE_NAMES[m] for m in modes],
                    "range": [MODES[m] for m in modes],
                },
                "legend": {"symbolOpacity": 1},
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
    ticks: Spec = {
        "data": {"name": "captured"},
        "mark": {"type": "rule", "color": "var(--ink)", "strokeWidth": 1, "opacity": 0.75},
        "encoding": {"x": x | {"field": "size"}, "y": {"value": 0}, "y2": {"value": 7}},
    }
    over = {"width": marks.WIDE, "height": 210, "layer": [circles, ticks]}
    return marks.top({"vconcat": [over, _bars(sizes)]})


def _bars(sizes: list[int]) -> Spec:
    return {
        "width": marks.WIDE,
        "height": 100,
        "data": {"name": "sizes"},
        "mark": {"type": "bar", "color": "var(--red)"},
        "encoding": {
            "x": {
                "field": "size",
                "type": "ordinal",
                "sort": sizes,
                "title": "size of the graph (tokens)",
                "axis": {"labelAngle": 0, "ticks": False},
            },
            "y": marks.quantity("waste", "padding in all") | {"axis": marks.counts(tickCount=4)},
            "tooltip": marks.tips(
                ("size", "size of the graph", ","),
                ("steps", "steps", ","),
                ("padded", "tokens run", ","),
                ("waste", "of them padding", ","),
            ),
        },
    }


CHART = Chart(
    "cuda_graph_padding",
    "Captured sizes against the sizes of steps",
    "How much is lost to padding, and which sizes would help?",
    ("cuda_graph_padding.csv", "cuda_graph_captures.csv"),
    draw,
    needs={
        "cuda_graph_padding": (
            "runtime_mode",
            "unpadded_tokens",
            "padded_tokens",
            "num_paddings",
            "count",
        ),
        "cuda_graph_captures": ("num_tokens",),
        "cuda_graph_replay_latency": ("runtime_mode", "num_tokens", "steps"),
    },
)
