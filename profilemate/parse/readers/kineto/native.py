"""The compiled scanner's library, where the installation has one.

It is optional: without it `EventStream` decodes each event, in ten times the time. It is made of
_scan.c by scripts/build_scanner.py where a C compiler is; PROFILEMATE_SCANNER=exact leaves it
alone.
"""

from __future__ import annotations

import ctypes
import os
import zlib
from functools import cache
from pathlib import Path

from profilemate.errors import InputError

VARIABLE = "PROFILEMATE_SCANNER"
SLOTS, VALUES, WIDTH = 64, 7, 10  # as in _scan.c

_SOURCE = Path(__file__).with_name("_scan.c")
_LIBRARY = Path(__file__).with_name("_scan.so")
_REMEDY = "Install profilemate again where a C compiler is"
_Integers = ctypes.POINTER(ctypes.c_int64)


class State(ctypes.Structure):
    """The first members of `scanner_t`, those that are for the caller."""

    _fields_ = (
        ("rows", _Integers * 3),
        ("room", ctypes.c_int64),
        ("used", ctypes.c_int64 * 3),
        ("row", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("last", ctypes.c_int64),
        ("names", ctypes.c_int64),
        ("failed", ctypes.c_int64),
        ("hits", ctypes.c_double * SLOTS),
    )


_State = ctypes.POINTER(State)
_FUNCTIONS = {
    "pm_source": (ctypes.c_uint32,),
    "pm_new": (_State, ctypes.c_int64),
    "pm_free": (None, _State),
    "pm_prefix": (ctypes.c_int, _State, ctypes.c_int, ctypes.c_char_p, ctypes.c_int64),
    "pm_template": (
        ctypes.c_int,
        _State,
        ctypes.c_int32,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_int32),
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_int32,
        ctypes.c_int32,
        ctypes.c_int32,
        _Integers,
    ),
    "pm_scan": (
        ctypes.c_int64,
        _State,
        ctypes.c_char_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_char_p,
        ctypes.c_int64,
    ),
    "pm_number": (ctypes.c_int64, _State, ctypes.c_char_p, ctypes.c_int64),
    "pm_name": (ctypes.c_void_p, _State, ctypes.c_int64, _Integers),
}


@cache
def _loaded(path: Path) -> ctypes.CDLL | str:
    """The library, or why there is none."""
    if not path.exists():
        return "is not built"
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as e:
        return f"cannot be loaded: {e}"
    # A library of another age of its source would write where nothing is for it.
    if library.pm_source() != zlib.crc32(_SOURCE.read_bytes()):
        return "was built of another _scan.c"
    return library


def _chosen() -> ctypes.CDLL | str:
    wish = os.environ.get(VARIABLE, "")
    if wish not in ("", "exact", "compiled"):
        raise InputError(
            f"{VARIABLE} is {wish!r}", hint=f"Set it to exact or compiled, or unset {VARIABLE}."
        )
    if wish == "exact":
        return f"is switched off by {VARIABLE}"
    found = _loaded(_LIBRARY)
    if wish == "compiled" and isinstance(found, str):
        raise InputError(
            f"{VARIABLE} asks for the compiled scanner, which there is not",
            why=f"{_LIBRARY} {found}.",
            hint=f"{_REMEDY}, or unset {VARIABLE}.",
        )
    return found


def library() -> ctypes.CDLL | None:
    """The compiled scanner, None where there is none or nobody wants it.

    Raises:
        InputError: The environment asks for one that is not there, or for something else.
    """
    found = _chosen()
    return None if isinstance(found, str) else found


def why_slow() -> str | None:
    """Why events are decoded one by one and what helps, None where the compiled scanner is in use.

    Raises:
        InputError: As `library`.
    """
    found = _chosen()
    if not isinstance(found, str):
        return None
    remedy = f"Unset {VARIABLE}" if os.environ.get(VARIABLE) else _REMEDY
    return f"the compiled scanner, which is ten times as fast, {found}. {remedy}."


def description() -> str:
    """Which scanner is in use, and why it is not the compiled one.

    Raises:
        InputError: As `library`.
    """
    slow = why_slow()
    return "compiled" if slow is None else f"none, which is slow: {slow}"
