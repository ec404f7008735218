"""Metric families as text: the OpenMetrics format, and Prometheus' older one.

Both are spelled by Prometheus' own client library. The two differ in the headers: the older one is
what `promtool check metrics` and the node exporter's textfile collector read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from profilemate.errors import ToolError, missing_extra

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class SampleLike(Protocol):
    """A sample as the writer needs it."""

    @property
    def suffix(self) -> str:
        """What its name has behind the family's."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""

    @property
    def value(self) -> float:
        """Its value."""


class SpecLike(Protocol):
    """A family's headers as the writer needs them."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def kind(self) -> str:
        """An OpenMetrics type."""

    @property
    def help(self) -> str:
        """What it means."""

    @property
    def unit(self) -> str:
        """Its unit, which the name ends with, or nothing."""


class FamilyLike(Protocol):
    """A family as the writer needs it. `profilemate.insight.metrics.Family` is one."""

    @property
    def spec(self) -> SpecLike:
        """Its headers."""

    @property
    def samples(self) -> Sequence[SampleLike]:
        """Its samples; those of one label set stand together."""


class _Registry:
    """What the client library asks for metrics."""

    def __init__(self, families: Iterable[FamilyLike]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import Metric

        for family in self._families:
            spec = family.spec
            metric = Metric(spec.name, spec.help, spec.kind, spec.unit)
            for sample in family.samples:
                metric.add_sample(spec.name + sample.suffix, dict(sample.labels), sample.value)
            yield metric


def openmetrics_text(families: Iterable[FamilyLike]) -> str:
    """The families in the OpenMetrics text format, version 1.

    Raises:
        ToolError: prometheus_client is not installed.
    """
    _need_client()
    from prometheus_client.openmetrics import exposition

    generate: Callable[[_Registry], bytes] = exposition.generate_latest
    return generate(_Registry(families)).decode("utf-8")


def prometheus_text(families: Iterable[FamilyLike]) -> str:
    """The families in Prometheus' text format, version 0.0.4.

    Raises:
        ToolError: prometheus_client is not installed.
    """
    _need_client()
    from prometheus_client import generate_latest

    return generate_latest(_Registry(families)).decode("utf-8")


def _need_client() -> None:
    try:
        import prometheus_client  # noqa: F401
    except ImportError as e:
        raise ToolError(
            "Metrics cannot be written",
            why="The package prometheus_client is not installed.",
            hint="Install what it needs:",
            command=missing_extra("export"),
        ) from e
