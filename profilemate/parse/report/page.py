"""The page: everything in one file, nothing fetched.

Whatever comes from the recording is foreign text: the template escapes all of it, JSON inside of
the page has no `<`, and the page's own policy lets only its two scripts run, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import profilemate
from profilemate.errors import ToolError
from profilemate.parse.headline import headline
from profilemate.parse.report import engine, theme
from profilemate.parse.report.about import about
from profilemate.parse.report.base import LABELS, Drawing, Drawn
from profilemate.parse.report.source import Source


class Judged(Protocol):
    """Findings and what could not be judged: `profilemate.parse.findings.Verdict` is one."""

    @property
    def findings(self) -> Sequence[Any]:
        """Worst first."""

    @property
    def unjudged(self) -> Sequence[Any]:
        """Each with its reason."""


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
    own, vega = _asset("page.js"), engine.script()
    template = _environment().from_string(_asset("page.html"))
    link = _links(source, folder)
    text: str = template.render(
        title=str(source.metadata.get("session_id") or source.path.name),
        started=source.metadata.get("start_time"),
        vllm=_vllm(source),
        figures=headline(source.session),
        verdict=verdict,
        sections=sections,
        about=about(source),
        data={d.chart.name: _data(d.drawing) for c in sections.values() for d in c if d.drawing},
        config=_json(theme.CONFIG),
        colours=theme.css(),
        style=_asset("page.css"),
        own=own,
        vega=vega,
        policy=_policy(own, vega),
        notice=_asset("notice.txt"),
        link=link,
        version=profilemate.__version__,
    )
    return text


def _vllm(source: Source) -> str:
    versions = source.metadata.get("versions")
    return str(versions.get("vllm") or "") if isinstance(versions, dict) else ""


def _links(source: Source, folder: Path) -> Any:
    base = os.path.relpath(source.path.resolve(), folder.resolve())

    def link(file: str) -> str:
        """The address of a file of the session, empty if it is not there."""
        if not (source.path / file).exists():
            return ""
        address = quote(os.path.join(base, file))
        # A colon in the first part of a relative address would read as the name of a protocol.
        return address if address.startswith(("/", ".")) else f"./{address}"

    return link


def _policy(*scripts: str) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    # Styles may be inline: the charts set some. They can fetch nothing, images come from data only.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(drawing: Drawing) -> str:
    grid = drawing.grid
    return _json(
        {
            "spec": drawing.spec,
            "data": drawing.data,
            "columns": drawing.columns,
            "labels": LABELS,
            "overTime": drawing.over_time,
            "says": drawing.says,
            "grid": {
                "row": grid.row,
                "fields": [{"name": f.name, "label": f.label, "kind": f.kind} for f in grid.fields],
                "data": grid.data,
            },
        }
    )


def _json(value: Any) -> str:
    """JSON that stays inside its element whatever it says."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, default=_plain)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    """Numbers of numpy as numbers."""
    return value.item()


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _environment() -> Any:
    try:
        import jinja2
    except ImportError as e:
        raise ToolError(
            "the report needs jinja2, which is not installed",
            hint="pip install 'profilemate[report]'",
        ) from e
    return jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
