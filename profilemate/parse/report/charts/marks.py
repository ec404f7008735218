"""Pieces of Vega-Lite that several charts use."""

from __future__ import annotations

from typing import Any

from profilemate.parse.report.base import Spec

TIME_TITLE = "time since the start of the recording (s)"
BRUSH: list[Spec] = [
    {
        "name": "brush",
        "select": {
            "type": "interval",
            "encodings": ["x"],
            "mark": {"fill": "var(--blue)", "fillOpacity": 0.15, "stroke": "var(--blue)"},
        },
    }
]
"""Marks a stretch of time with the mouse; the page then shows that stretch in all charts."""


def time_axis(domain: tuple[float, float], *, labelled: bool = True) -> Spec:
    """The x channel of a chart over time, without its field."""
    axis: Spec = {"grid": False, "title": TIME_TITLE if labelled else None, "tickCount": 10}
    if not labelled:
        axis["labels"] = False
    scale = {"domain": list(domain), "nice": False, "zero": False}
    return {"type": "quantitative", "axis": axis, "scale": scale}


def quantity(field: str, title: str | None, **scale: Any) -> Spec:
    """A quantitative channel."""
    channel: Spec = {"field": field, "type": "quantitative", "title": title}
    return channel | ({"scale": scale} if scale else {})


def tips(*rows: tuple[str, str, str]) -> list[Spec]:
    """Tooltip lines: field, label, d3 format (empty for text)."""
    return [
        {"field": field, "title": label, "type": "quantitative", "format": form}
        if form
        else {"field": field, "title": label, "type": "nominal"}
        for field, label, form in rows
    ]


def top(spec: Spec) -> Spec:
    """A whole specification. The description is set where the chart is put into the page."""
    return {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", **spec}


def by_row(names: list[str], *, labelled: bool, limit: int = 200) -> Spec:
    """The y channel of one row per name, in the order given."""
    axis: Spec = {"title": None, "ticks": False, "domain": False, "labelLimit": limit}
    axis["minExtent"] = axis["maxExtent"] = limit if labelled else 0
    if not labelled:
        axis["labels"] = False
    axis["labelColor"] = "var(--ink)"
    return {"field": "label", "type": "nominal", "sort": names, "axis": axis}
