"""Each chart as a picture for papers and pull requests: in light colours, always of one width."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from profilemate.errors import OutputError
from profilemate.insight.report import engine
from profilemate.insight.report.base import Drawn, resolve, rows_of
from profilemate.insight.report.theme import CONFIG, PICTURE_FONT, in_light

WIDTH = 960
"""Of a picture in CSS pixels; it has twice as many real ones."""
SCALE = 2.0
_EDGE = 16
_LINE = 140
"""Letters of the notes on one line."""


def picture(drawn: Drawn) -> dict[str, Any]:
    """The specification of a drawn chart as a picture, its data in it."""
    assert drawn.drawing is not None
    drawing = drawn.drawing
    spec = resolve(drawing.spec, WIDTH - 2 * _EDGE, drawing.columns)
    config = {**CONFIG, "background": "white", "font": PICTURE_FONT, "padding": _EDGE}
    whole = {
        **spec,
        "datasets": {name: rows_of(columns) for name, columns in drawing.data.items()},
        "config": config,
        "title": {
            "text": drawn.chart.title,
            "subtitle": textwrap.wrap(" ".join(drawing.notes), _LINE),
            "fontSize": 15,
        },
    }
    light: dict[str, Any] = in_light(whole)
    return light


def write_pictures(drawn: Mapping[str, Sequence[Drawn]], folder: Path) -> list[Path]:
    """Write one PNG for each chart that has a drawing, named after it.

    Raises:
        OutputError: One cannot be written.
        ToolError: The extra `report` is not installed.
    """
    written = []
    for chart in (chart for charts in drawn.values() for chart in charts):
        if chart.drawing is None:
            continue
        path = folder / f"{chart.chart.name}.png"
        data = engine.png(picture(chart), SCALE)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as e:
            raise OutputError(
                "cannot write a picture",
                path=path,
                why=e.strerror or str(e),
                hint="Choose another folder with --png.",
            ) from e
        written.append(path)
    return written
