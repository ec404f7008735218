"""The columns of event frames, and their dtypes."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from profilemate import schema
from profilemate.parse.columns.pandas import IdsDtype

# Column dtypes by the type of a schema field; `ids` are tuples of int, see `parse.ids_column`.
DTYPES: Mapping[str, str] = {
    "int": "Int64",
    "bool": "boolean",
    "str": "string",
    "ids": IdsDtype.name,
}

COMMON_COLUMNS: Mapping[str, str] = {
    "ts": "int64",  # begin of the event, ns since the start of the trace
    "dur": "Int64",  # ns on the host; NA where not known
    "pid": "int64",
    "tid": "int64",
}

KV_COLUMNS: Mapping[str, str] = {
    **COMMON_COLUMNS,
    "seq": "int64",  # order of the operation in its process, which time stamps need not give
    "op": "string",  # alloc, evict, cache, touch, free, move, reset, usage
    "pool": "Int64",
    "used": "Int64",  # blocks in use after the operation
    "ids": "ids",  # tuple of block ids; of a move: the sources
    "subset": "ids",  # of touch: revived; of free: freed; None where it is all of `ids`
    "dst": "ids",  # of a move: the destinations
    "req": "string",
    "group": "Int64",
    "partial": "boolean",
    "hit": "boolean",
    "cause": "string",
    "ok": "boolean",
}
"""Columns of the log of block operations (`kv_log`) as a frame: all of `schema.KV_OPS`, in order.

Rows are ordered by (pid, seq). Frames of other kinds are ordered by (ts, pid) and are named after
their kind; they have `COMMON_COLUMNS` and then one column per field of the kind.
"""


def columns_of(name: str) -> Mapping[str, str]:
    """Columns and dtypes of the frame of an event kind outside `KV_OPS`."""
    fields = schema.KINDS[name].fields
    return {**COMMON_COLUMNS, **{f.name: DTYPES[f.type] for f in fields}}


FRAME_NAMES = tuple(name for name in schema.KINDS if name not in schema.KV_OPS)
"""The frames of a trace: a kind of event each. Block operations are a log instead."""


def empty_frame(name: str) -> pd.DataFrame:
    """The frame `name` without rows."""
    return pd.DataFrame({c: pd.Series(dtype=t) for c, t in columns_of(name).items()})
