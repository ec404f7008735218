"""The page of one session: findings, charts, and what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
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
    told = source.metadata.get("start_time")
    try:
        return datetime.fromisoformat(str(told)).isoformat(" ", "seconds")
    except ValueError:
        return None if told is None else str(told)


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
        title=str(source.metadata.get("session_id") or source.path.name),
        started=_started(source),
        vllm=_vllm(source),
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


def _vllm(source: Source) -> str:
    versions = source.metadata.get("versions")
    return str(versions.get("vllm") or "") if isinstance(versions, dict) else ""
