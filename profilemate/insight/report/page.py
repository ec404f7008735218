"""The page of one session: findings, charts, and what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from profilemate.insight.headline import headline
from profilemate.insight.report import shell
from profilemate.insight.report.about import about
from profilemate.insight.report.base import Drawn
from profilemate.insight.report.source import Source


class Judged(Protocol):
    """Findings and what could not be judged: `profilemate.insight.findings.Verdict` is one."""

    @property
    def findings(self) -> Sequence[Any]:
        """Worst first."""

    @property
    def unjudged(self) -> Sequence[Any]:
        """Each with its reason."""


def _started(source: Source) -> str | None:
    """When it was recorded, to the second."""
    start = source.metadata.start
    return None if start is None else start.isoformat(" ", "seconds")


def page(
    source: Source, sections: Mapping[str, Sequence[Drawn]], verdict: Judged, folder: Path
) -> str:
    """The page as text.

    Args:
        source: The session.
        sections: Charts by the title of their section.
        verdict: What was found.
        folder: Where the page will lie: links to the files are relative to it.
    """
    return shell.render(
        "page.html",
        title=source.metadata.session_id or source.path.name,
        started=_started(source),
        vllm=source.metadata.versions.get("vllm") or "",
        figures=headline(source.session),
        verdict=verdict,
        sections=sections,
        about=about(source),
        data={
            d.chart.name: shell.data_of(d.drawing)
            for c in sections.values()
            for d in c
            if d.drawing
        },
        link=shell.links(source.path, folder),
    )
