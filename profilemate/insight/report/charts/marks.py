"""Pieces of Vega-Lite that several charts use."""

from __future__ import annotations

from typing import Any

from profilemate.insight.report.base import LABELS, Spec

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
    channel["axis"] = {"minExtent": 34}
    return channel | ({"scale": scale} if scale else {})


WIDE = "$W-76"
"""Of a panel that has the whole width, without its axis."""


def width_of(panels: int) -> str:
    """Of each of some panels with rows, side by side."""
    return f"$W/{panels}-{(LABELS + 36 + 28 * (panels - 1)) // panels}"


def counts(**axis: Any) -> Spec:
    """An axis of numbers that may be large: 0, 500, 2k, 1.5M."""
    return {"labelExpr": "datum.value ? format(datum.value, '~s') : '0'", "minExtent": 34, **axis}


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


def by_row(names: list[str], place: int) -> Spec:
    """The y channel of one row per name, in the order given.

    The first panel has the names, and the others too where they stand below it.
    """
    axis: Spec = {"title": None, "ticks": False, "domain": False, "labelLimit": LABELS}
    axis["minExtent"] = axis["maxExtent"] = LABELS if place == 0 else "$E"
    axis["labels"] = True if place == 0 else "$L"
    axis["labelColor"] = "var(--ink)"
    return {"field": "label", "type": "nominal", "sort": names, "axis": axis}
