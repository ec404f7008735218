"""What each CUDA graph was used for: its share of the steps, of GPU time and of the padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from profilemate.insight.figures.steps import COUNTING
from profilemate.insight.reading import Floats, floats
from profilemate.insight.report.base import Chart, Drawing, Field, Grid, Nothing, Spec
from profilemate.insight.report.charts import marks
from profilemate.insight.report.source import Source, plain
from profilemate.parse.session.saved import GRAPH_COLUMNS

MOST_DRAWN = 30
PANELS = {
    "steps_pct": "share of model steps (%)",
    "gpu_pct": "share of GPU time (%)",
    "padding_pct": "share of padding tokens (%)",
}
COLOURS = {"steps_pct": "var(--blue)", "gpu_pct": "var(--green)", "padding_pct": "var(--orange)"}


def padding_of(source: Source) -> Floats:
    """Padding tokens of the steps of each graph of `source.graphs`, NaN where not known."""
    steps = source.steps
    sums = steps.groupby(list(GRAPH_COLUMNS), dropna=False, sort=False)["padding_tokens"].sum(
        min_count=1
    )
    found = {_key(key): value for key, value in sums.items()}
    keys = map(_key, source.graphs[list(GRAPH_COLUMNS)].itertuples(index=False, name=None))
    return floats(pd.Series([found.get(key) for key in keys], dtype="Float64"))


def _key(values: Any) -> tuple[Any, ...]:
    """A graph's key; no LoRA adapters are 0 in one file and may be None in the other."""
    known = {n: None if pd.isna(v) else v for n, v in zip(GRAPH_COLUMNS, values, strict=True)}
    known["num_active_loras"] = known["num_active_loras"] or 0
    return tuple(known.values())


def draw(source: Source) -> Drawing:
    """Bars per graph, a panel for each share that is known."""
    graphs = source.graphs
    if graphs.empty:
        raise Nothing(source.why_empty("cuda_graph_replay_latency"))
    steps, padding = floats(graphs["steps"]), padding_of(source)
    all_padding = float(np.nansum(floats(source.steps["padding_tokens"])))
    shares = {
        "steps_pct": 100 * steps / max(len(source.steps), 1),
        "gpu_pct": 100 * floats(graphs["gpu_time_share"]),
        "padding_pct": 100 * padding / all_padding if all_padding else padding * np.nan,
    }
    known = [name for name, values in shares.items() if not np.isnan(values).all()]
    drawn = min(len(graphs), MOST_DRAWN)
    names = graphs["label"].tolist()
    data: dict[str, Any] = {"label": names} | {n: plain(v, 4) for n, v in shares.items()}
    grid = Grid(
        "replayed CUDA graph",
        (
            Field("label", "graph", "text"),
            Field("steps", "steps", "int"),
            Field("steps_pct", "of steps", "percent"),
            Field("gpu_pct", "of GPU time", "percent"),
            Field("padding", "padding tokens", "int"),
            Field("padding_pct", "of padding", "percent"),
        ),
        data
        | {"steps": plain(graphs["steps"]), "padding": plain(pd.Series(padding, dtype="Int64"))},
    )
    first = f"{names[0]} ran {shares['steps_pct'][0]:.1f} % of the model steps"
    return Drawing(
        spec=_spec(known, names[:drawn]),
        data={"graphs": {name: column[:drawn] for name, column in data.items()}},
        grid=grid,
        says=f"{len(graphs)} CUDA graphs were replayed; {first}.",
        notes=_notes(shares, known, len(graphs), drawn, steps),
        columns=len(known),
    )


def _notes(
    shares: dict[str, Floats], known: list[str], count: int, drawn: int, steps: Floats
) -> list[str]:
    notes = []
    if drawn < count:
        rest = 100 * steps[drawn:].sum() / steps.sum()
        notes.append(
            f"The {drawn} most replayed of {count} are drawn; the others have {rest:.1f} % of the "
            "replays."
        )
    notes += [
        f"The {PANELS[n].removesuffix(' (%)')} is not known." for n in shares if n not in known
    ]
    return notes


def _spec(known: list[str], names: list[str]) -> Spec:
    panels = []
    for i, name in enumerate(known):
        panels.append(
            {
                "width": marks.width_of(len(known)),
                "height": {"step": 18},
                "data": {"name": "graphs"},
                "mark": {"type": "bar", "color": COLOURS[name], "height": 12},
                "encoding": {
                    "y": marks.by_row(names, i),
                    "x": marks.quantity(name, PANELS[name]) | {"axis": {"tickCount": 4}},
                    "tooltip": marks.tips(
                        ("label", "graph", ""),
                        *((n, PANELS[n], ".2f") for n in known),
                    ),
                },
            }
        )
    return marks.top({"columns": "$C", "concat": panels})


CHART = Chart(
    "cuda_graph_usage",
    "Use of each CUDA graph",
    "Which graphs are hot, and is the workload uniform?",
    ("cuda_graph_usage.csv", "cuda_graph_replay_latency.csv", "cuda_graph_steps.csv"),
    draw,
    needs={
        "cuda_graph_replay_latency": ("runtime_mode", "num_tokens", "steps"),
        "cuda_graph_steps": (
            "runtime_mode",
            "num_tokens",
            "padding_tokens",
            *COUNTING,
        ),
    },
)
