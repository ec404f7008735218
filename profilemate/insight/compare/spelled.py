"""A comparison's figures as text: the same on the terminal and in the page."""

from __future__ import annotations

from typing import Literal

from profilemate.insight.compare.graphs import FALSE_ALARMS, Graphs, Outcome
from profilemate.insight.compare.metrics import Metric
from profilemate.insight.compare.rows import MetricRow
from profilemate.insight.reading import percent

Tone = Literal["better", "worse", ""]


def title(metric: Metric) -> str:
    """A figure's name with its unit."""
    return f"{metric.title}, {metric.unit}" if metric.unit else metric.title


def change(row: MetricRow) -> tuple[str, Tone]:
    """The change of a figure, and whether it is for better or worse where that can be said.

    Relative to A; of percents in points, and where A is 0 in the figure's unit.
    """
    found = row.change
    if found is None:
        return "-", ""
    if row.metric.unit == "%":
        text = f"{found:+.2f}"
    elif row.relative is not None:
        text = relative(row.relative)
    else:
        text = f"{found:+,.0f}" if found else "0"
    if float(text.split()[0].replace(",", "")) == 0 or not row.metric.better:
        return text, ""
    return text, "worse" if (found > 0) == (row.metric.better == "lower") else "better"


def relative(share: float | None) -> str:
    """A change relative to A."""
    return "-" if share is None else f"{100 * share:+.1f} %"


def verdict(outcome: Outcome) -> str:
    """What became of a graph, in words."""
    return {"few": "too few", "same": "noise"}.get(outcome, outcome)


def chance(value: float) -> str:
    """A p- or q-value."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def all_graphs(graphs: Graphs) -> str:
    """What all common graphs together say; empty where there is no test."""
    test = graphs.test
    if test is None:
        return ""
    longer = f"a step of B is longer than one of A in {percent(test.effect)} of pairs"
    noise = "more than noise" if test.p < FALSE_ALARMS else "within noise"
    return f"{longer}: {noise} (p {chance(test.p)})"
