"""Figures of two sessions side by side: one row each, with a name for --fail-on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from profilemate.insight.compare.graphs import Graphs
from profilemate.insight.compare.noise import Floats
from profilemate.insight.figures import Figure, graphs, kv, steps
from profilemate.insight.figures.base import Better, ranked
from profilemate.parse.session.saved import SavedSession

Pair = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a session.

    Attributes:
        name: As --fail-on has it.
        title: As a table has it.
        unit: `ms`, `%`, `/s` or empty.
        better: Which way is better, empty where neither is.
        doc: What it is, exactly.
        of: Sessions and graphs to the figure of A and of B; None where one cannot tell.
    """

    name: str
    title: str
    unit: str
    better: Better
    doc: str
    of: Callable[[SavedSession, SavedSession, Graphs], Pair]


def _each(figure: Figure) -> Metric:
    """A figure that each session has by itself."""

    def pair(a: SavedSession, b: SavedSession, graphs: Graphs) -> Pair:
        return figure.value(a).value, figure.value(b).value

    return Metric(figure.name, figure.title, figure.unit, figure.better, figure.doc, pair)


def _replay(of: Callable[[Floats], float | None]) -> Callable[..., Pair]:
    """A statistic of the common graphs' durations, each graph with its steps in A and B."""

    def pair(a: SavedSession, b: SavedSession, graphs: Graphs) -> Pair:
        common = [p for p in graphs.series.values() if len(p[0]) and len(p[1])]
        weights = np.array([len(x) + len(y) for x, y in common], dtype=np.float64)
        if not common:
            return None, None
        weights /= weights.sum()
        sides = zip(*((of(x), of(y)) for x, y in common), strict=True)
        before, after = (
            float(sum(w * (v or 0.0) for w, v in zip(weights, s, strict=True))) for s in sides
        )
        return before, after

    return pair


def _outcomes(outcome: str) -> Callable[..., Pair]:
    def pair(a: SavedSession, b: SavedSession, graphs: Graphs) -> Pair:
        if not any(r.q is not None for r in graphs.rows):
            return None, None
        return 0.0, float(sum(r.outcome == outcome for r in graphs.rows))

    return pair


_MIX = (
    " per graph, averaged over the graphs that both sessions ran, each with its steps in both: "
    "another mix of batch sizes does not move it. GPU span where both have GPU records, else the "
    "host's time."
)

_OUTCOMES: tuple[tuple[str, Better, str], ...] = (
    ("slower", "lower", "longer"),
    ("faster", "higher", "less"),
)
_ROWS = (
    *(
        Metric(f"replay_{name}", f"replay, {title}", "ms", "lower", doc + _MIX, _replay(of))
        for name, title, doc, of in (
            ("p50", "median", "Median", lambda s: ranked(s, 50)),
            ("p90", "p90", "90th percentile", lambda s: ranked(s, 90)),
            ("p99", "p99", "99th percentile", lambda s: ranked(s, 99)),
            ("mean", "mean", "Mean", lambda s: float(s.mean())),
        )
    ),
    *(
        Metric(
            f"graphs_{outcome}",
            f"graphs {outcome}",
            "",
            better,
            f"Graphs whose steps take {more} in B by more than noise; 0 in A.",
            _outcomes(outcome),
        )
        for outcome, better, more in _OUTCOMES
    ),
    *map(
        _each,
        (
            steps.STEP_HOST_P50,
            steps.TOKENS_PER_SEC,
            steps.GRAPH_STEPS,
            steps.GRAPH_TOKENS,
            steps.GRAPH_GPU,
            steps.EAGER_DECODE,
            graphs.PADDING,
            graphs.CAPTURED,
            graphs.UNUSED,
            kv.PEAK,
            kv.MEAN,
            kv.EVICTIONS,
            kv.LIFE,
            kv.HIT_RATE,
            kv.PREEMPTIONS,
            kv.LOST,
            steps.STEPS,
            steps.TOKENS,
        ),
    ),
)

METRICS: dict[str, Metric] = {m.name: m for m in _ROWS}
