"""Colours and the look of charts, said once for the page and for pictures.

Data colours are those of Okabe and Ito, which people with any common colour blindness can tell
apart; in the dark they are lighter. Charts name them as CSS variables, so that the page turns dark,
light or to print without drawing anything anew; pictures get the light ones.
"""

from __future__ import annotations

import re
from typing import Any

from profilemate.schema.modes import EAGER, FULL, PIECEWISE, on_graph

COLOURS: dict[str, tuple[str, str]] = {
    "bg": ("#ffffff", "#14171c"),
    "card": ("#ffffff", "#1b1f26"),
    "page": ("#f4f6f8", "#101317"),
    "sunk": ("#f4f6f8", "#232831"),
    "ink": ("#1b2430", "#e6e9ee"),
    "muted": ("#5a6675", "#a3adba"),
    "line": ("#dde2e8", "#333a45"),
    "grid": ("#e9edf1", "#2a303a"),
    "link": ("#0b63a5", "#7cbcf2"),
    "blue": ("#0072b2", "#56a8e0"),
    "green": ("#009e73", "#35c49a"),
    "orange": ("#e69f00", "#f0b840"),
    "red": ("#d55e00", "#f58a4b"),
    "sky": ("#56b4e9", "#8fd0f5"),
    "purple": ("#a8578a", "#dd9cc4"),
    "bad": ("#b84a00", "#f58a4b"),
    "fine": ("#00755a", "#35c49a"),
    "grey": ("#8a94a1", "#7d8794"),
}
"""Name to its colour in light and in the dark."""

MODES = {FULL: "var(--blue)", PIECEWISE: "var(--green)", EAGER: "var(--orange)"}
"""Colours of the runtime modes."""
MODE_NAMES = {m: f"{m} graph" if on_graph(m) else f"eager ({m})" for m in MODES}

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
PICTURE_FONT = "Liberation Sans, Arial, DejaVu Sans, sans-serif"

CONFIG: dict[str, Any] = {
    "background": None,
    "font": FONT,
    "padding": 4,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11.5,
        "titlePadding": 8,
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "gridColor": "var(--grid)",
        "labelOverlap": True,
        "labelLimit": 260,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "labelFontSize": 11.5,
        "orient": "top",
        "title": None,
        "symbolType": "square",
        "offset": 6,
        "columnPadding": 18,
    },
    "title": {
        "color": "var(--ink)",
        "subtitleColor": "var(--muted)",
        "anchor": "start",
        "fontSize": 12.5,
        "fontWeight": 600,
        "subtitleFontSize": 11.5,
        "offset": 10,
    },
    "text": {"color": "var(--ink)", "fontSize": 11},
    "rule": {"color": "var(--muted)"},
    "bar": {"color": "var(--blue)"},
    "concat": {"spacing": 28},
}


def css() -> str:
    """The colours as variables: light, and where the reader or the toggle asks for it, dark."""
    light, dark = (
        "".join(f"--{name}:{pair[i]};" for name, pair in COLOURS.items()) for i in (0, 1)
    )
    return (
        f":root{{color-scheme:light;{light}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
        "@media screen and (prefers-color-scheme:dark)"
        f"{{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f"@media print{{:root,:root[data-theme=dark]{{color-scheme:light;{light}}}}}"
    )


def in_light(value: Any) -> Any:
    """A specification with the light colours in place of the variables, for a picture."""
    if isinstance(value, dict):
        return {key: in_light(item) for key, item in value.items()}
    if isinstance(value, list):
        return [in_light(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"var\(--(\w+)\)", lambda m: COLOURS[m[1]][0], value)
    return value
