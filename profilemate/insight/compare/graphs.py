"""Two sessions graph by graph: the same graph's steps, and whether they take longer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from profilemate.insight.compare.noise import (
    Floats,
    Pair,
    Test,
    compare_series,
    compare_together,
    q_values,
)
from profilemate.insight.figures.base import ranked
from profilemate.insight.figures.steps import counting, step_rows
from profilemate.insight.graph_names import graph_names
from profilemate.insight.reading import NoData, floats
from profilemate.parse.columns.arrays import Ints
from profilemate.parse.session.saved import GRAPH_COLUMNS, SavedSession
from profilemate.parse.tables.step_rows import on_graphs

Outcome = Literal["slower", "faster", "same", "few", "only A", "only B"]

FALSE_ALARMS = 0.05
"""Share of false alarms among the graphs that are called slower or faster."""

DURATIONS: Mapping[str, str] = {
    "graph_gpu_ms": "GPU span of the graph launches of a step",
    "launch_ms": "time in the graph launch calls of a step",
    "host_ms": "host duration of a step",
}
"""Columns of cuda_graph_steps.csv that a comparison may rest on, the best first."""


@dataclass(frozen=True, slots=True)
class GraphRow:
    """A graph in both sessions; times in ms, None where it did not run.

    Attributes:
        graph: Its name.
        steps: Steps that ran on it, in A and in B.
        p50: Median duration, in A and in B.
        p99: 99th percentile.
        change: Of the median, relative to A.
        longer: Probability that a step of B is longer than one of A; 0.5 is no difference.
        p: p-value of the difference.
        q: The same, corrected for the number of graphs.
        outcome: `slower` or `faster` (more than noise), `same` (within it), `few` (too few steps to
            say), `only A`, `only B`.
    """

    graph: str
    steps: tuple[int, int]
    p50: tuple[float | None, float | None]
    p99: tuple[float | None, float | None]
    change: float | None
    longer: float | None
    p: float | None
    q: float | None
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Graphs:
    """The graphs of two sessions, those with most steps first.

    Attributes:
        duration: The column of cuda_graph_steps.csv that is compared, empty if there is none.
        rows: One per graph of either session.
        test: Of all common graphs together, each weighted with its steps in both.
        series: Durations of each graph in A and in B, in order of time.
    """

    duration: str
    rows: list[GraphRow]
    test: Test | None
    series: dict[str, tuple[Floats, Floats]]


def duration_of(a: SavedSession, b: SavedSession) -> str:
    """The best duration that both sessions have of steps on graphs; empty if there is none."""
    have = [_on_graphs(s) for s in (a, b)]
    for column in DURATIONS:
        if all(column in f.columns and not np.isnan(floats(f[column])).all() for f in have):
            return column
    return ""


def compare_graphs(a: SavedSession, b: SavedSession) -> Graphs:
    """Compare two sessions graph by graph."""
    column = duration_of(a, b)
    if not column:
        return Graphs("", [], None, {})
    of_a, of_b = (_series(_on_graphs(s), column) for s in (a, b))
    none = np.array([], dtype=np.float64), np.array([], dtype=np.int64)
    names = dict.fromkeys([*of_a, *of_b])
    found = {name: (of_a.get(name, none), of_b.get(name, none)) for name in names}
    series = {name: (a[0], b[0]) for name, (a, b) in found.items()}
    tests = {name: compare_series(*pair) for name, pair in series.items()}
    told = {name: test for name, test in tests.items() if test is not None}
    q = dict(zip(told, q_values([t.p for t in told.values()]), strict=True))
    rows = [_row(name, series[name], tests[name], q.get(name)) for name in names]
    rows.sort(key=lambda r: (-sum(r.steps), _natural(r.graph)))
    together = compare_together([Pair(a[0], b[0], a[1], b[1]) for a, b in found.values()])
    return Graphs(column, rows, together, series)


def _natural(name: str) -> list[tuple[int, str]]:
    """An order in which 8 comes before 16."""
    return [(int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _on_graphs(session: SavedSession) -> pd.DataFrame:
    """Steps that count and ran on a graph."""
    try:
        frame = step_rows(session, "runtime_mode")
    except NoData:
        return session.table("cuda_graph_steps").iloc[:0]
    return frame[on_graphs(frame["runtime_mode"]) & counting(frame)]


def _series(frame: pd.DataFrame, column: str) -> dict[str, tuple[Floats, Ints]]:
    """Known durations by graph, in order of time, and their places among all steps."""
    values = floats(frame[column])
    keys = [k for k in GRAPH_COLUMNS if k in frame.columns]
    code = frame.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    first = np.unique(code, return_index=True)[1]
    names = graph_names(frame.iloc[first])
    places: dict[str, list[Ints]] = {}
    for number, name in enumerate(names):
        places.setdefault(name, []).append(np.flatnonzero((code == number) & ~np.isnan(values)))
    whole = {name: np.sort(np.concatenate(parts)) for name, parts in places.items()}
    return {name: (values[at], at) for name, at in whole.items() if len(at)}


def _row(name: str, pair: tuple[Floats, Floats], test: Test | None, q: float | None) -> GraphRow:
    a, b = pair
    row = GraphRow(
        graph=name,
        steps=(len(a), len(b)),
        p50=(ranked(a, 50), ranked(b, 50)),
        p99=(ranked(a, 99), ranked(b, 99)),
        change=None,
        longer=None,
        p=None,
        q=q,
        outcome="only A" if not len(b) else "only B",
    )
    if not (len(a) and len(b)):
        return row
    before, after = row.p50
    change = after / before - 1 if before and after is not None else None
    if test is None or q is None:
        return replace(row, change=change, outcome="few")
    outcome: Outcome = "same"
    if q < FALSE_ALARMS:
        outcome = "slower" if test.effect > 0.5 else "faster"
    return replace(row, change=change, longer=test.effect, p=test.p, outcome=outcome)
