"""A figure of two sessions."""

from __future__ import annotations

from dataclasses import dataclass

from profilemate.insight.compare.metrics import Metric


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A figure of A and of B.

    Attributes:
        metric: What it is.
        a: In A, None where it cannot be told.
        b: In B.
        change: b - a, None where one of them is.
        relative: The same, relative to a; None where a is 0.
    """

    metric: Metric
    a: float | None
    b: float | None

    @property
    def change(self) -> float | None:
        """B less A."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def relative(self) -> float | None:
        """The change, relative to A."""
        return None if self.change is None or not self.a else self.change / self.a
