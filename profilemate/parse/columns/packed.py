"""Columns of a batch of rows in few bytes, and back.

Each column is stored as its distance from its smallest value in as few bytes as that takes; one
that goes far in small steps, such as a time, as its steps. What is missing (`NONE`) has a mask of
its own. A batch is text (what is where) and then bytes: it can lie in memory, in a file or in the
cache, and tell no program what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import NONE, Ints
from profilemate.parse.columns.id_lists import IdLists

_WIDTHS = ((1 << 8, "u1"), (1 << 16, "u2"), (1 << 32, "u4"), (1 << 64, "u8"))
_HEAD = 8  # bytes: how long the text is
_LISTS = ("flat", "lengths", "missing")


def pack(columns: Mapping[str, Any]) -> bytes:
    """Columns as bytes: arrays of integers or booleans, or `IdLists`."""
    specs: list[list[Any]] = []
    blocks: list[bytes] = []
    for name, column in columns.items():
        if isinstance(column, IdLists):
            parts = (column.flat, column.lengths, column.missing)
            for part, values in zip(_LISTS, parts, strict=True):
                specs.append([f"{name}.{part}", *_packed(values, blocks)])
        else:
            specs.append([name, *_packed(column, blocks)])
    text = json.dumps(specs, separators=(",", ":")).encode()
    return b"".join([len(text).to_bytes(_HEAD, "little"), text, *blocks])


def _packed(column: npt.NDArray[Any], blocks: list[bytes]) -> list[Any]:
    """Add the bytes of a column: its length, base, width, whether in steps, bytes of its mask."""
    values = column.astype(np.int64, copy=False)
    mask = b""
    if not len(values):
        return [0, 0, "", False, 0]
    low = int(values.min())
    if low == NONE:
        missing = values == NONE
        if missing.all():
            return [len(values), NONE, "", False, 0]
        mask = np.packbits(missing).tobytes()
        low = int(values[~missing].min())
        values = np.where(missing, low, values)
    width, steps = _width(int(values.max()) - low), False
    if width == "u8" and len(values) > 1:
        step = np.diff(values)
        least = int(step.min())
        narrow = _width(int(step.max()) - least)
        # A distance of more than 63 bits wraps around, and wraps back when it is added.
        if narrow != "u8":
            first = int(values[0])
            blocks += [mask, (step - least).astype(narrow or "u1").tobytes()]
            return [len(values), [first, least], narrow or "u1", True, len(mask)]
    blocks.append(mask)
    if width == "u8":
        blocks.append(values.tobytes())
        low = 0
    elif width:
        blocks.append((values - low).astype(width).tobytes())
    return [len(values), low, width, steps, len(mask)]


def _width(reach: int) -> str:
    return "" if not reach else next(width for limit, width in _WIDTHS if reach < limit)


def unpack(data: bytes, wanted: Collection[str] | None = None) -> dict[str, Any]:
    """The columns that `pack` was given, as `int64`; only some if so `wanted`."""
    at = _HEAD + int.from_bytes(data[:_HEAD], "little")
    specs = json.loads(data[_HEAD:at])
    found: dict[str, Any] = {}
    lists: dict[str, dict[str, Ints]] = {}
    for spec in specs:
        name, _, part = spec[0].partition(".")
        size = _size(spec)
        if wanted is None or name in wanted:
            values = _unpacked(spec, memoryview(data)[at : at + size])
            if part:
                lists.setdefault(name, {})[part] = values
                found[name] = None
            else:
                found[name] = values
        at += size
    for name, parts in lists.items():
        found[name] = IdLists(parts["flat"], parts["lengths"], parts["missing"].astype(bool))
    return found


def _size(spec: list[Any]) -> int:
    _, length, _, width, steps, masked = spec
    return int(masked) + (int(length) - bool(steps)) * int(width[1:] or 0)


def _unpacked(spec: list[Any], data: memoryview) -> Ints:
    _, length, base, width, steps, masked = spec
    values = np.empty(length, dtype=np.int64)
    raw = data[masked:]
    if steps:
        first, least = base
        values[0] = first
        values[1:] = np.frombuffer(raw, dtype=width)
        values[1:] += least
        np.cumsum(values, out=values)
    elif width == "u8":
        values[:] = np.frombuffer(raw, dtype=np.int64)
    elif width:
        values[:] = np.frombuffer(raw, dtype=width)
        values += base
    else:
        values[:] = base
    if masked:
        bits = np.frombuffer(data[:masked], dtype=np.uint8)
        values[np.unpackbits(bits, count=length).astype(bool)] = NONE
    return values


def rows_of(columns: Mapping[str, Any]) -> int:
    """How many rows there are."""
    return len(next(iter(columns.values()))) if columns else 0


def picked(columns: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """Some of the rows."""
    return {name: column[rows] for name, column in columns.items()}


def joined(parts: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """The rows of several batches, one after the other."""
    first = next(iter(parts))
    if len(parts) == 1:
        return dict(first)
    found = {}
    for name, column in first.items():
        join: Callable[[list[Any]], Any] = (
            IdLists.joined if isinstance(column, IdLists) else np.concatenate
        )
        found[name] = join([part[name] for part in parts])
    return found
