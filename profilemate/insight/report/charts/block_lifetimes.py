"""How long blocks lived and how long they lay idle before their end."""

from __future__ import annotations

from typing import Any

import numpy as np

from profilemate.insight.reading import Floats, floats
from profilemate.insight.report.base import Chart, Drawing, Field, Grid, Nothing, Spec
from profilemate.insight.report.charts import marks
from profilemate.insight.report.source import Source, plain

PER_DECADE = 5
LEAST, MOST = -6, 6
"""Powers of ten of seconds; what is shorter or longer counts in the last bin."""
EDGES: Floats = 10.0 ** (np.arange(LEAST * PER_DECADE, MOST * PER_DECADE + 1) / PER_DECADE)
ENDS = {
    "evicted": ("evicted", "var(--red)"),
    "connector": ("invalidated by a connector", "var(--purple)"),
    "reused": ("reused, nothing cached", "var(--blue)"),
    "reset": ("cache reset", "var(--grey)"),
}
LIMITS = {"lifetime": 10.0, "idle": 5.0}
"""Seconds: lifetimes above and idle times below are healthy, by the project's specification."""
_COLUMNS = ("ended_by", "lifetime_sec", "idle_sec")


def bins(values: Floats) -> Floats:
    """How many of the values lie in each bin `EDGES[i] <= value < EDGES[i + 1]`."""
    place = np.searchsorted(EDGES, values[~np.isnan(values)], side="right") - 1
    place = np.clip(place, 0, len(EDGES) - 2)
    return np.bincount(place, minlength=len(EDGES) - 1).astype(np.float64)


def draw(source: Source) -> Drawing:
    """Two histograms over bins that grow with the time."""
    counts = {(what, end): np.zeros(len(EDGES) - 1) for what in LIMITS for end in ENDS}
    lives = open_ = unknown = 0
    for piece in source.session.chunks("kv_block_lifetimes", _COLUMNS):
        ended = piece["ended_by"].to_numpy(dtype=object, na_value="open")
        lifetime = floats(piece["lifetime_sec"])
        lives += len(piece)
        open_ += int((ended == "open").sum())
        unknown += int((np.isnan(lifetime) & (ended != "open")).sum())
        for end in ENDS:
            these = ended == end
            counts["lifetime", end] += bins(lifetime[these])
            counts["idle", end] += bins(floats(piece["idle_sec"])[these])
    if not lives:
        raise Nothing(source.why_empty("kv_block_lifetimes"))
    if not sum(c.sum() for c in counts.values()):
        raise Nothing("No life of a block began and ended within the recording.")
    used = np.flatnonzero(sum(counts.values()))
    return Drawing(
        spec=_spec(used, [e for e in ENDS if any(counts[w, e].any() for w in LIMITS)]),
        data={what: _bars(counts, what, used) for what in LIMITS} | {"limits": _limits()},
        grid=_grid(counts, used),
        says=_says(counts),
        notes=_notes(lives, open_, unknown),
        columns=2,
    )


def _notes(lives: int, open_: int, unknown: int) -> list[str]:
    notes = [
        "Bins grow with the time, five to a power of ten. Dashed: lifetimes over 10 s and idle "
        "times under 5 s are healthy."
    ]
    left = [f"{open_:,} had not ended"] if open_ else []
    left += [f"{unknown:,} began before it"] if unknown else []
    if left:
        notes.append(f"Of {lives:,} lives in the recording {' and '.join(left)}.")
    return notes


def _says(counts: dict[tuple[str, str], Floats]) -> str:
    parts = [
        f"{int(counts['lifetime', end].sum()):,} {name}"
        for end, (name, _) in ENDS.items()
        if counts["lifetime", end].sum()
    ]
    return f"Complete lives of blocks by how they ended: {'; '.join(parts) or 'none'}."


def _bars(counts: dict[tuple[str, str], Floats], what: str, used: Any) -> dict[str, Any]:
    """A bar for each bin and end that occurs, stacked."""
    rows: list[tuple[float, float, str, float, float, int]] = []
    for i in used:
        base = 0.0
        for end, (name, _) in ENDS.items():
            n = counts[what, end][i]
            if n:
                rows.append((EDGES[i], EDGES[i + 1], name, base, base + n, int(n)))
                base += n
    names = ("from", "to", "end", "y0", "y1", "n")
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return {name: plain(list(c), 9) for name, c in zip(names, columns, strict=True)}


def _limits() -> dict[str, Any]:
    return {"what": list(LIMITS), "limit": list(LIMITS.values())}


def _grid(counts: dict[tuple[str, str], Floats], used: Any) -> Grid:
    shown = range(used[0], used[-1] + 1)
    fields = [Field("from", "from", "sec"), Field("to", "below", "sec")]
    data: dict[str, Any] = {
        "from": plain(EDGES[list(shown)], 9),
        "to": plain(EDGES[[i + 1 for i in shown]], 9),
    }
    for (what, end), values in counts.items():
        if values.sum():
            name = f"{what}_{end}"
            fields.append(Field(name, f"{what}: {ENDS[end][0]}", "int"))
            data[name] = plain(values[list(shown)].astype(np.int64))
    return Grid("bin of seconds", tuple(fields), data)


def _spec(used: Any, ends: list[str]) -> Spec:
    low, high = EDGES[used[0]], EDGES[used[-1] + 1]
    return marks.top(
        {
            "columns": "$C",
            "concat": [
                _panel("lifetime", "lifetime (s)", min(low, 10.0), max(high, 20.0), ends),
                _panel("idle", "idle before the end (s)", min(low, 5.0), max(high, 20.0), ends),
            ],
        }
    )


def _panel(what: str, title: str, low: float, high: float, ends: list[str]) -> Spec:
    names, colours = [ENDS[e][0] for e in ends], [ENDS[e][1] for e in ends]
    axis = {"format": ",.6~f", "grid": False, "tickCount": 6}
    x: Spec = {"type": "quantitative", "title": title, "axis": axis}
    x["scale"] = {"type": "log", "domain": [low, high], "nice": False}
    bars: Spec = {
        "data": {"name": what},
        "mark": {"type": "bar", "binSpacing": 1},
        "encoding": {
            "x": x | {"field": "from"},
            "x2": {"field": "to"},
            "y": marks.quantity("y0", "lives of blocks") | {"axis": marks.counts()},
            "y2": {"field": "y1"},
            "color": {
                "field": "end",
                "type": "nominal",
                "scale": {"domain": names, "range": colours},
            },
            "tooltip": marks.tips(
                ("end", "ended", ""),
                ("from", "from (s)", ".3~g"),
                ("to", "below (s)", ".3~g"),
                ("n", "lives", ","),
            ),
        },
    }
    rule: Spec = {
        "data": {"name": "limits"},
        "transform": [{"filter": f"datum.what == '{what}'"}],
        "mark": {"type": "rule", "strokeDash": [4, 3]},
        "encoding": {"x": x | {"field": "limit"}},
    }
    return {"width": "$W/2-86", "height": 190, "layer": [bars, rule]}


CHART = Chart(
    "kv_block_lifetimes",
    "Lifetime and idle time of blocks",
    "How long does cached content live, and how long does it lie unused before it goes?",
    ("kv_block_lifetimes.csv", "kv_cache_evictions.csv"),
    draw,
    needs={"kv_block_lifetimes": tuple(_COLUMNS)},
)
