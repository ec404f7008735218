"""A metric family, and the collector that puts samples into families by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from profilemate.insight.figures import Figure
from profilemate.parse.session.saved import SavedSession

Kind = Literal["counter", "gauge", "summary", "histogram", "info"]

SCALES = {"%": 100.0}
"""What a figure's unit has to be divided by for the base unit of a metric."""
UNITS = ("seconds", "ratio")
"""Units that a name may end with; what is counted in pieces has none."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A metric family without its samples: name, kind and help text.

    The name of a counter is without its `_total`, that of an info metric without `_info`.
    """

    name: str
    kind: Kind
    help: str

    @property
    def unit(self) -> str:
        """The base unit of its values, which the name ends with; empty if they are counts."""
        last = self.name.rpartition("_")[2]
        return last if last in UNITS else ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; `suffix` is what its name has behind the family's, such as `_total`."""

    suffix: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family with its samples."""

    spec: Spec
    samples: list[Sample] = field(default_factory=list)


def number(value: Any) -> float | None:
    """A cell of a table as a number; None where it is not known."""
    return None if pd.isna(value) else float(str(value))


def text(cell: Any) -> str:
    """A cell of a table as a label, spelled as in the CSV file; empty for NA."""
    return "" if pd.isna(cell) else str(cell)


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a session as a metric; labels are those of its sample."""

    figure: Figure
    spec: Spec
    labels: Mapping[str, str] = field(default_factory=dict)


def metric(figure: Figure, name: str, kind: Kind, **labels: str) -> Metric:
    """A figure as the metric `profilemate_<name>`, with its own definition as the help text."""
    return Metric(figure, Spec(f"profilemate_{name}", kind, figure.doc), labels)


class Collector:
    """Families by name, and labels that every sample gets."""

    def __init__(
        self, labels: Mapping[str, str], families: dict[str, Family] | None = None
    ) -> None:
        self._labels = dict(labels)
        self._families = {} if families is None else families

    def labelled(self, **labels: str) -> Collector:
        """A collector into the same families with further labels."""
        return Collector({**self._labels, **labels}, self._families)

    def families(self) -> list[Family]:
        """The families that have samples, in the order of their first sample."""
        return list(self._families.values())

    def add(
        self, spec: Spec, value: Any, labels: Mapping[str, str] = {}, *, scale: float = 1
    ) -> None:
        """Add the value of a counter or gauge, if it is known, divided by `scale`."""
        known = number(value)
        if known is not None:
            suffix = "_total" if spec.kind == "counter" else ""
            self._sample(spec, suffix, labels, known / scale)

    def add_figures(self, metrics: Sequence[Metric], session: SavedSession) -> None:
        """Add the figures that the session can tell."""
        for of in metrics:
            value, scale = of.figure.value(session).value, SCALES.get(of.figure.unit, 1.0)
            self.add(of.spec, value, of.labels, scale=scale)

    def info(self, spec: Spec, facts: Mapping[str, object]) -> None:
        """Add an info metric; facts that are not known are no labels."""
        labels = {name: str(fact) for name, fact in facts.items() if fact is not None}
        self._sample(spec, "_info", labels, 1)

    def summary(
        self,
        spec: Spec,
        quantiles: Mapping[str, float | None],
        count: float | None,
        total: float | None,
        labels: Mapping[str, str],
    ) -> None:
        """Add a summary, where its sum is known; the count may not be."""
        if total is None:
            return
        for quantile, value in quantiles.items():
            if value is not None:
                self._sample(spec, "", {**labels, "quantile": quantile}, value)
        self._sample(spec, "_sum", labels, total)
        if count is not None:
            self._sample(spec, "_count", labels, count)

    def histogram(
        self, spec: Spec, bounds: tuple[float, ...], values: pd.Series, labels: Mapping[str, str]
    ) -> None:
        """Add a histogram of values of which all are known."""
        for bound in bounds:
            at_most = int((values <= bound).sum())
            self._sample(spec, "_bucket", {**labels, "le": repr(float(bound))}, at_most)
        self._sample(spec, "_bucket", {**labels, "le": "+Inf"}, len(values))
        self._sample(spec, "_sum", labels, math.fsum(values))
        self._sample(spec, "_count", labels, len(values))

    def _sample(self, spec: Spec, suffix: str, labels: Mapping[str, str], value: float) -> None:
        family = self._families.setdefault(spec.name, Family(spec))
        # To Prometheus an empty label is none.
        given = {name: label for name, label in {**self._labels, **labels}.items() if label}
        family.samples.append(Sample(suffix, given, value))
