"""Two sessions side by side: figures, graphs, and what differs before anything was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profilemate.insight.compare.caveats import caveats
from profilemate.insight.compare.conditions import GRAMMAR, Condition, parse_condition
from profilemate.insight.compare.graphs import (
    DURATIONS,
    FALSE_ALARMS,
    GraphRow,
    Graphs,
    compare_graphs,
)
from profilemate.insight.compare.metrics import METRICS, Metric
from profilemate.insight.compare.rows import MetricRow
from profilemate.parse.session.saved import SavedSession

__all__ = [
    "DURATIONS",
    "FALSE_ALARMS",
    "GRAMMAR",
    "METRICS",
    "Comparison",
    "Condition",
    "GraphRow",
    "Graphs",
    "Metric",
    "MetricRow",
    "as_json",
    "compare",
    "parse_condition",
]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sessions compared.

    Attributes:
        a: The first: what B is compared with.
        b: The second.
        caveats: What differs between them that is no result, a sentence each; read it first.
        metrics: Figures that at least one of them has, in the order of `METRICS`.
        graphs: Graph by graph.
    """

    a: SavedSession
    b: SavedSession
    caveats: list[str]
    metrics: list[MetricRow]
    graphs: Graphs

    def check(self, conditions: Sequence[Condition]) -> list[Condition]:
        """The conditions that hold.

        Raises:
            InputError: One of them needs a figure that a session does not have.
        """
        rows = {row.metric.name: row for row in self.metrics}
        none = (None, None)
        pairs = {
            c: (rows[c.metric].a, rows[c.metric].b) if c.metric in rows else none
            for c in conditions
        }
        return [c for c, (a, b) in pairs.items() if c.holds(a, b)]


def compare(a: SavedSession, b: SavedSession) -> Comparison:
    """Compare two sessions, each by its lead rank.

    Raises:
        InputError: A table cannot be read.
    """
    graphs = compare_graphs(a, b)
    rows = [MetricRow(m, *m.of(a, b, graphs)) for m in METRICS.values()]
    told = [row for row in rows if row.a is not None or row.b is not None]
    return Comparison(a, b, caveats(a, b, graphs.duration), told, graphs)


def as_json(found: Comparison, failed: Sequence[Condition] = ()) -> dict[str, Any]:
    """The comparison for machines."""
    test = found.graphs.test
    return {
        "version": 1,
        "a": _session(found.a),
        "b": _session(found.b),
        "caveats": found.caveats,
        "metrics": {
            row.metric.name: {
                "a": row.a,
                "b": row.b,
                "change": row.change,
                "relative": row.relative,
                "unit": row.metric.unit,
                "better": row.metric.better or None,
            }
            for row in found.metrics
        },
        "graphs": {
            "duration": found.graphs.duration or None,
            "all": None if test is None else {"longer": test.effect, "p": test.p},
            "rows": [_graph(row) for row in found.graphs.rows],
        },
        "failed": [c.text for c in failed],
    }


def _session(session: SavedSession) -> Mapping[str, Any]:
    names, said = ("session_id", "start_time", "versions", "window_sec"), session.metadata.to_json()
    return {"path": str(session.path), **{n: said[n] for n in names}}


def _graph(row: GraphRow) -> Mapping[str, Any]:
    return {
        "graph": row.graph,
        "steps": list(row.steps),
        "p50_ms": list(row.p50),
        "p99_ms": list(row.p99),
        "change": row.change,
        "longer": row.longer,
        "p": row.p,
        "q": row.q,
        "outcome": row.outcome,
    }
