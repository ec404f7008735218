"""What a chart of the report is: its picture as data, its table, and what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from profilemate.insight.report.source import Source

Columns = Mapping[str, Sequence[Any]]
"""A small table as JSON can spell it: column name to values, all as long as each other."""

Spec = dict[str, Any]
"""A Vega-Lite specification. Its data are named; a width may be `$W/3-60`, see `resolve`."""

Kind = Literal["text", "int", "number", "sec", "ms", "percent", "change", "chance", "verdict"]


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a chart's table: percents and changes are 0 to 100, like the axes.

    A change has its sign, a chance is a p- or q-value, a verdict is a text with a colour.
    """

    name: str
    label: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Grid:
    """The table under a chart; `row` says what one row is."""

    row: str
    fields: tuple[Field, ...]
    data: Columns

    def __post_init__(self) -> None:
        assert {f.name for f in self.fields} == set(self.data), self.row
        assert len({len(values) for values in self.data.values()}) == 1, self.row


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a chart shows of a session.

    Attributes:
        spec: The picture.
        data: Its data, by the names that the specification uses.
        grid: The same figures as a table.
        says: What the picture shows, in a sentence with figures: the text alternative.
        notes: What a reader must know: how many points are drawn, what is left out.
        columns: Panels side by side where there is room for it.
        over_time: Its x axis is the time of the recording: it zooms with the others.
    """

    spec: Spec
    data: Mapping[str, Columns]
    grid: Grid
    says: str
    notes: Sequence[str] = ()
    columns: int = 1
    over_time: bool = False


class Nothing(Exception):  # noqa: N818 - a result, not an error
    """There is nothing to draw; the message says why, in one line for people."""


@dataclass(frozen=True, slots=True)
class Titled:
    """What a chart says of itself, whatever is drawn.

    Attributes:
        name: Its id in the page and the name of its picture, after the file it shows.
        title: What it shows.
        question: What it answers.
        files: The files it is made of, the one to open first in front.
    """

    name: str
    title: str
    question: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart(Titled):
    """A chart of the report: one file in `charts/`, one row in `CHARTS`.

    Attributes:
        draw: A session's data to the drawing; raises `Nothing`.
        needs: Columns by their table. Where one of a table that has rows is not in the file,
            which another version wrote, the chart would show what is not known, and is not drawn.
    """

    draw: Callable[[Source], Drawing]
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart and what became of it: a drawing, or why there is none."""

    chart: Titled
    drawing: Drawing | None = None
    why: str = ""
    notes: Sequence[str] = field(default=())


LABELS = 190
"""Pixels for the names of rows."""
_WIDTH = re.compile(r"\$W(?:/(\d))?(?:-(\d+))?")


def resolve(spec: Any, width: float, columns: int) -> Any:
    """The specification for a width; the page does the same in the browser.

    `$W/n-m` are pixels: `width / n - m`, or with one column `width - m`. `$C` is the number of
    columns, `$L` whether each panel needs labels of its own, `$E` the pixels these take.
    """
    if isinstance(spec, dict):
        return {key: resolve(value, width, columns) for key, value in spec.items()}
    if isinstance(spec, list):
        return [resolve(value, width, columns) for value in spec]
    if isinstance(spec, str) and spec in ("$C", "$L", "$E"):
        return {"$C": columns, "$L": columns == 1, "$E": LABELS if columns == 1 else 0}[spec]
    if isinstance(spec, str) and (found := _WIDTH.fullmatch(spec)):
        parts = int(found[1] or 1) if columns > 1 else 1
        return width / parts - int(found[2] or 0)
    return spec


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    """One object per row, as Vega reads them."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
