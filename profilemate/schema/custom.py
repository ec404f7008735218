"""Events of kinds that others define: `custom.<kind>`, with values that say their own type.

    custom.my_metric ago=900 dur=3 tokens=i:35 share=f:0.25 ok=b:True req=s:cmpl-7

An integer is `i:`, a float `f:`, a bool `b:`, a percent-encoded string `s:`; what is None is left
out. A kind needs no row in `KINDS`, and a reader nothing of the code that made the event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from profilemate.schema.fields import encode_str

PREFIX = "custom."

RULE = "a letter, then letters, digits and underscores, in lower case, 64 at most"

RESERVED = ("ago", "dur", "t", "seq", "timestamp_sec", "duration_ms", "pid", "tid")
"""Names that no field may have: what every event has by itself."""

Scalar = int | float | bool | str

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def is_name(text: str) -> bool:
    """Whether a kind or a field may be called so."""
    return _NAME.fullmatch(text) is not None


def encode_fields(kind: str, fields: Mapping[str, Any]) -> str:
    """Spell the fields of an event, each with a blank before it.

    Raises:
        TypeError: A value is of no type that can be spelled.
        ValueError: A field may not be called so.
    """
    text = ""
    for name, value in fields.items():
        if not is_name(name) or name in RESERVED:
            raise ValueError(f"{kind}: no name for a field: {name!r} ({RULE})")
        if type(value).__module__ == "numpy" and hasattr(value, "item"):
            value = value.item()
        if value is None:
            continue
        if isinstance(value, bool):
            text += f" {name}=b:{value}"
        elif isinstance(value, int):
            text += f" {name}=i:{int(value)}"
        elif isinstance(value, float):
            text += f" {name}=f:{float(value)!r}"
        elif isinstance(value, str):
            text += f" {name}=s:{encode_str(str.__str__(value))}"
        else:
            what = type(value).__name__
            raise TypeError(
                f"{kind}: {name} is of type {what}; give an int, float, bool, str or None"
            )
    return text


def encode(ago: int, dur: int, kind: str, fields: str) -> str:
    """Spell an event whose fields were spelled before."""
    return f"{PREFIX}{kind} ago={ago} dur={dur}{fields}"


def decode_scalar(text: str) -> Scalar:
    """Read a value back, after percent-decoding; what is spelled in no known way is its own text.

    Integers of more than 64 bits become floats.
    """
    tag, colon, rest = text.partition(":")
    try:
        if colon and tag == "i":
            value = int(rest)
            return value if -(1 << 63) <= value < 1 << 63 else float(value)
        if colon and tag == "f":
            return float(rest)
    except (ValueError, OverflowError):
        return text
    if tag == "b" and rest in ("True", "False"):
        return rest == "True"
    return rest if colon and tag == "s" else text
