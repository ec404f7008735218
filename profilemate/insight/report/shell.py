"""What all pages share: everything in one file, nothing fetched.

Whatever comes from a recording is foreign text: templates escape all of it, JSON inside of a page
has no `<`, and a page's own policy lets only its two scripts run, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import profilemate
from profilemate.errors import ToolError, missing_extra
from profilemate.insight.report import engine, theme
from profilemate.insight.report.base import LABELS, Drawing
from profilemate.parse.writers.one_file import replaced_file

_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")


def render(template: str, **values: Any) -> str:
    """A page as text, from a template that extends frame.html, and its values.

    Raises:
        ToolError: The extra `report` is not installed.
    """
    own, vega = _asset("page.js"), engine.script()
    text: str = (
        _environment()
        .get_template(template)
        .render(
            config=_json(theme.CONFIG),
            colours=theme.css(),
            style=_asset("page.css"),
            own=own,
            vega=vega,
            policy=_policy(own, vega),
            notice=_asset("notice.txt"),
            version=profilemate.__version__,
            **values,
        )
    )
    return text


def write(text: str, out: Path, what: str) -> Path:
    """Write a page; an old one is replaced whole or not at all.

    Raises:
        OutputError: It cannot be written; `what` is in its message.
    """
    # Request ids are foreign text: a lone surrogate must not cost the user the page.
    with replaced_file(out, force=True, what=what) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))
    return out


def links(session: Path, folder: Path) -> Callable[[str], str]:
    """Addresses of a session's files, relative to the folder of the page."""
    base = os.path.relpath(session.resolve(), folder.resolve())

    def link(file: str) -> str:
        """The address of a file of the session, empty if it is not there."""
        if not (session / file).exists():
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


def data_of(drawing: Drawing) -> str:
    """A drawing as the JSON that page.js reads."""
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
            hint="Install what it needs:",
            command=missing_extra("report"),
        ) from e
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    return environment


def _prose(text: str) -> Any:
    """Words with vLLM's flags in them, as HTML: a flag looks like one, and breaks nowhere else."""
    from markupsafe import Markup, escape

    return Markup(_FLAG.sub(r"<code>\g<0></code>", str(escape(text))))
