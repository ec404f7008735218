"""A session as charts ask for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profilemate.insight.figures import Figure
from profilemate.insight.figures.base import spell
from profilemate.insight.figures.steps import counting
from profilemate.insight.graph_names import graph_names
from profilemate.insight.reading import floats
from profilemate.insight.report.times import Intervals, intervals
from profilemate.parse.session.metadata import Metadata
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables import TABLES


def plain(values: Any, digits: int = 6) -> list[Any]:
    """Values as JSON spells them; NA and NaN are None, floats are rounded to shorten the page."""
    series = pd.Series(values)
    if pd.api.types.is_float_dtype(series.dtype):
        numbers = floats(series)
        whole = np.round(numbers, digits).tolist()
        return [None if v != v else v for v in whole]
    return [None if pd.isna(v) else v for v in series.tolist()]


class Source:
    """The tables that charts need, each read once.

    Attributes:
        session: The session.
    """

    def __init__(self, session: SavedSession) -> None:
        self.session = session

    @property
    def metadata(self) -> Metadata:
        """The session's metadata."""
        return self.session.metadata

    def table(self, name: str) -> pd.DataFrame:
        """A table of the session."""
        return self.session.table(name)

    def why_empty(self, table: str) -> str:
        """Why a table has no rows, as far as the session says."""
        told, file = self.session.metadata.empty_files, TABLES[table].file
        for name in (file, f"{table}.csv"):
            if name in told:
                return f"{file} is empty: {told[name]}."
        if not (self.session.path / file).is_file():
            return f"The session has no {file}."
        return f"{file} is empty."

    def why_unknown(self, needs: Mapping[str, Iterable[str]]) -> str:
        """Why columns of tables are not known, or nothing; tables without rows know them all."""
        for table, columns in needs.items():
            lost = [c for c in columns if c in self.session.lacks(table)]
            if lost and len(self.table(table)):
                return (
                    f"{TABLES[table].file} has no column {', '.join(lost)}: another version of "
                    "profilemate wrote it."
                )
        return ""

    def text(self, figure: Figure) -> str:
        """A figure as charts say it; `an unknown number of` where the session cannot tell."""
        value = figure.value(self.session).value
        unit = f" {figure.unit}" if figure.unit else ""
        return "an unknown number of" if value is None else spell(value, figure.unit) + unit

    @cached_property
    def window(self) -> tuple[float, float]:
        """Begin and end of what was recorded, in seconds since the start of the recording."""
        ends: list[float] = []
        ends += self.session.metadata.window_sec or ()
        for name in ("kv_cache_usage", "cuda_graph_steps", "kv_prefix_cache"):
            times = floats(self.table(name)["timestamp_sec"])
            times = times[~np.isnan(times)]
            ends += [float(times.min()), float(times.max())] if len(times) else []
        return (min(ends), max(ends)) if ends else (0.0, 0.0)

    @cached_property
    def intervals(self) -> Intervals:
        """The intervals by which charts and tables over time count: the same in all of them."""
        return intervals(*self.window)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """The model steps that count."""
        steps = self.table("cuda_graph_steps")
        real: pd.DataFrame = steps[counting(steps)]
        return real

    @cached_property
    def graphs(self) -> pd.DataFrame:
        """Replayed graphs, most steps first: cuda_graph_replay_latency.csv with a `label` each."""
        graphs = self.table("cuda_graph_replay_latency")
        order = np.argsort(-floats(graphs["steps"]), kind="stable")
        graphs = graphs.iloc[order].reset_index(drop=True)
        graphs["label"] = _unique(graph_names(graphs), graphs["uniform"])
        return graphs

    @property
    def path(self) -> Path:
        """The session's directory."""
        return self.session.path


def _unique(names: list[str], uniform: pd.Series) -> list[str]:
    """Names that rows of a chart can have: no two are the same."""
    kinds = ["" if pd.isna(u) else " uniform" if u else " mixed" for u in uniform]
    told = [n + k if names.count(n) > 1 else n for n, k in zip(names, kinds, strict=True)]
    return [
        n if told.count(n) == 1 else f"{n} #{told[: i + 1].count(n)}" for i, n in enumerate(told)
    ]
