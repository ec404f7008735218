"""A trace as plain facts and Arrow tables, and back: exactly the same trace.

What a frame's columns are made of (values, masks, codes of strings, block ids) goes into tables of
plain numbers, so that the dtypes that pandas and we add to numpy's come back as they were. What
this module does not know is not kept at all: `UnkeepableError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.pandas import IdsArray
from profilemate.parse.columns.spool import Blocks
from profilemate.parse.gpu.work import GpuWork
from profilemate.parse.recording.contract import Silence, SourceInfo, SourceKind
from profilemate.parse.trace.kv_log import KvLog, Segment, Texts
from profilemate.parse.trace.trace import Placement, Trace

FRAMES = ("launches", "gpu", "annotations")
"""Frames of a trace that are fields of their own."""

MANY = ("frames", "custom")
"""Fields of a trace that are frames by name."""

WORK = "work"
"""The field of folded GPU records: two groups of columns, kept as frames."""

_APART = {*FRAMES, *MANY, WORK, "sources", "placements", "engine", "kv"}
_PLAIN = [f.name for f in fields(Trace) if f.name not in _APART]

_MASKED = (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)

Facts = dict[str, Any]
Array = np.ndarray[Any, np.dtype[Any]]


class UnkeepableError(ValueError):
    """Something of a trace is not of a kind that is known here."""


def pack(trace: Trace) -> tuple[Facts, list[pa.Table]]:
    """Everything of a trace: facts as JSON spells them, and tables.

    Raises:
        UnkeepableError: It holds what this module does not know.
    """
    if trace.engine is not None:
        raise UnkeepableError("a trace of one rank")
    tables: list[pa.Table] = []
    frames: list[tuple[str, str | None, pd.DataFrame]] = [
        (field, None, getattr(trace, field)) for field in FRAMES
    ]
    frames += [(f, name, frame) for f in MANY for name, frame in getattr(trace, f).items()]
    frames += [(WORK, f.name, _columns(getattr(trace.work, f.name))) for f in fields(GpuWork)]
    facts = {
        "trace": {name: _plain(getattr(trace, name)) for name in _PLAIN},
        "sources": [_record(source) for source in trace.sources],
        "placements": [_record(placement) for placement in trace.placements],
        "frames": [[field, name, _pack_frame(frame, tables)] for field, name, frame in frames],
        "log": _pack_log(trace.kv, tables),
    }
    return facts, tables


def unpack(facts: Facts, tables: Sequence[pa.Table]) -> Trace:
    """The trace that `pack` took apart."""
    given: dict[str, Any] = {name: _from_plain(v) for name, v in facts["trace"].items()}
    given |= {field: {} for field in (*MANY, WORK)}
    for field, name, spec in facts["frames"]:
        frame = _unpack_frame(spec, tables)
        if name is None:
            given[field] = frame
        else:
            given[field][name] = frame
    given["kv"] = _unpack_log(facts["log"], tables)
    given[WORK] = GpuWork(**{n: _arrays(frame) for n, frame in given[WORK].items()})
    given["sources"] = [_source(record) for record in facts["sources"]]
    given["placements"] = [Placement(**_from_record(r)) for r in facts["placements"]]
    return Trace(**given)


def _columns(arrays: Mapping[str, Array]) -> pd.DataFrame:
    return pd.DataFrame(dict(arrays))


def _arrays(frame: pd.DataFrame) -> dict[str, Array]:
    return {str(name): frame[name].to_numpy() for name in frame.columns}


# ------------------------------------------------------------------------------ facts


def _plain(value: Any) -> Any:
    """A value as JSON spells it, with what JSON has no word for marked."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, SourceKind):
        return str(value)
    if isinstance(value, Silence):
        return {"silence": str(value)}
    if type(value) is list:
        return [_plain(v) for v in value]
    if type(value) is tuple:
        return {"tuple": [_plain(v) for v in value]}
    if type(value) is dict:
        return {"dict": [[_plain(k), _plain(v)] for k, v in value.items()]}
    if isinstance(value, Path):
        return {"path": str(value)}
    raise UnkeepableError(f"a {type(value).__name__}")


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_plain(v) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tuple":
        return tuple(_from_plain(v) for v in inner)
    if kind == "path":
        return Path(inner)
    if kind == "silence":
        return Silence(inner)
    return {_from_plain(k): _from_plain(v) for k, v in inner}


def _record(value: SourceInfo | Placement) -> Facts:
    return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}


def _from_record(record: Mapping[str, Any]) -> Facts:
    return {name: _from_plain(value) for name, value in record.items()}


def _source(record: Mapping[str, Any]) -> SourceInfo:
    values = _from_record(record)
    return SourceInfo(**{**values, "kind": SourceKind(values["kind"])})


# ------------------------------------------------------------------------------ the log


def _pack_log(log: KvLog, tables: list[pa.Table]) -> Facts:
    """Its segments as they are, and its strings."""
    blocks = pa.array([log.blocks[one.block] for one in log.segments], type=pa.large_binary())
    texts = [text.encode("utf-8", "surrogatepass") for text in log.texts.texts]
    first = len(tables)
    tables.extend(_table([array]) for array in (blocks, pa.array(texts, type=pa.large_binary())))
    return {"table": first, "segments": [[one.rows, one.pid, one.seq] for one in log.segments]}


def _unpack_log(spec: Facts, tables: Sequence[pa.Table]) -> KvLog:
    packed, texts = (tables[spec["table"] + i].column(0) for i in range(2))
    blocks = Blocks(Budget())
    segments = [
        Segment(blocks.add(block.as_py()), *facts)
        for block, facts in zip(packed, spec["segments"], strict=True)
    ]
    return KvLog(
        blocks, segments, Texts([t.decode("utf-8", "surrogatepass") for t in texts.to_pylist()])
    )


# ------------------------------------------------------------------------------ frames


def _pack_frame(frame: pd.DataFrame, tables: list[pa.Table]) -> Facts:
    """Put a frame's columns into tables: one of all arrays of its length, others alone."""
    if not isinstance(frame.index, pd.RangeIndex) or list(frame.index[:1]) not in ([], [0]):
        raise UnkeepableError("a frame with an index of its own")
    rows: list[pa.Array] = []
    apart: list[pa.Array] = []
    columns = []
    for name, column in frame.items():
        kind, detail, arrays = _taken(column)
        places = []
        for array in arrays:
            whole = len(array) == len(frame)
            (rows if whole else apart).append(array)
            places.append([0, len(rows) - 1] if whole else [len(apart), 0])
        columns.append([_plain(name), kind, detail, places])
    first = len(tables)
    tables.extend(_table(some) for some in (rows, *([array] for array in apart)))
    return {"rows": len(frame), "table": first, "columns": columns}


def _table(arrays: Sequence[pa.Array]) -> pa.Table:
    return pa.table(list(arrays), names=[str(i) for i in range(len(arrays))])


def _unpack_frame(spec: Facts, tables: Sequence[pa.Table]) -> pd.DataFrame:
    data = {}
    for name, kind, detail, places in spec["columns"]:
        arrays = [tables[spec["table"] + table].column(column) for table, column in places]
        data[_from_plain(name)] = _put_together(kind, detail, arrays)
    frame = pd.DataFrame(data)
    if len(frame) != spec["rows"] and data:
        raise ValueError("a frame of another length than it had")
    return frame


def _taken(column: pd.Series) -> tuple[str, Any, list[pa.Array]]:
    """What a column is, and the arrays that it is made of."""
    array, dtype = column.array, column.dtype
    if isinstance(array, IdsArray):
        return "ids", None, _arrow(array.lengths, array.isna(), array.flat)
    if isinstance(array, _MASKED):
        masked: Any = array
        return "masked", str(dtype), _arrow(masked._data, masked._mask)
    if isinstance(dtype, pd.StringDtype):
        missing = "NA" if dtype.na_value is pd.NA else "nan"
        return "string", [dtype.storage, missing], _strings(array)
    if isinstance(dtype, np.dtype) and dtype.kind in "iufb":
        return "numpy", str(dtype), _arrow(column.to_numpy())
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        if not all(value is None or type(value) is str for value in column):
            raise UnkeepableError("a column of objects that are no strings")
        return "object", None, _strings(column.to_numpy())
    raise UnkeepableError(f"a column of {dtype}")


def _put_together(kind: str, detail: Any, arrays: list[pa.ChunkedArray]) -> Any:
    if kind == "numpy":
        return _numpy(arrays[0], detail)
    if kind == "ids":
        lengths, missing, flat = arrays
        return IdsArray(_numpy(flat, "int64"), _numpy(lengths, "int64"), _numpy(missing, "bool"))
    if kind == "masked":
        dtype: Any = pd.api.types.pandas_dtype(detail)
        array = dtype.construct_array_type()
        return array(_numpy(arrays[0], dtype.numpy_dtype), _numpy(arrays[1], "bool"))
    if kind == "object":
        return pd.Series(_objects(arrays[0], arrays[1], None), dtype="object")
    storage, missing_ = detail
    return _string_array(storage, pd.NA if missing_ == "NA" else np.nan, *arrays)


def _arrow(*arrays: Array) -> list[pa.Array]:
    return [pa.array(array) for array in arrays]


def _numpy(array: pa.ChunkedArray, dtype: Any) -> Array:
    """A copy that may be written to: Arrow's own memory may not."""
    parts = [chunk.to_numpy(zero_copy_only=False) for chunk in array.chunks]
    found = np.concatenate([np.empty(0, dtype=dtype), *parts])
    if found.dtype != np.dtype(dtype):
        raise ValueError(f"a column of {found.dtype} instead of {dtype}")
    return found


def _strings(values: Any) -> list[pa.Array]:
    """Numbers of strings, -1 for none, and each string once: requests are named by every event."""
    codes, distinct = pd.factorize(values)
    # A name may hold a lone surrogate, which UTF-8 proper cannot spell.
    spelled = [str(value).encode("utf-8", "surrogatepass") for value in distinct]
    numbers: Iterable[Any] = codes.astype(np.int32 if len(spelled) < 1 << 31 else np.int64)
    return [pa.array(numbers), pa.array(spelled, type=pa.large_binary())]


def _objects(codes: pa.ChunkedArray, distinct: pa.ChunkedArray, missing: Any) -> Array:
    values = np.empty(len(distinct) + 1, dtype=object)
    values[:-1] = [value.decode("utf-8", "surrogatepass") for value in distinct.to_pylist()]
    values[-1] = missing  # which is what -1 stands for
    result: Array = values[_codes(codes)]
    return result


def _codes(codes: pa.ChunkedArray) -> Array:
    return _numpy(codes, codes.type.to_pandas_dtype())


def _string_array(
    storage: Any, missing: Any, codes: pa.ChunkedArray, distinct: pa.ChunkedArray
) -> Any:
    # pandas 2 knows no other missing value than NA, and no such argument.
    named = {} if missing is pd.NA else {"na_value": missing}
    dtype: Any = pd.StringDtype(storage, **named)
    if storage != "pyarrow":
        return pd.array(_objects(codes, distinct, missing), dtype=dtype)
    names = distinct.combine_chunks().cast(pa.large_string())
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    numbers = _codes(codes)
    parts = pa.DictionaryArray.from_arrays(pa.array(numbers, mask=numbers < 0), names)
    return dtype.__from_arrow__(pa.chunked_array([parts.dictionary_decode()]))
