"""Rows of CSV files spelled in columns by Arrow: the same bytes as `spelling` and the csv module.

A table of ten million rows takes a minute and a half the other way.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from profilemate.parse.columns.arrays import Ints, starts_of
from profilemate.parse.columns.pandas import IdsArray
from profilemate.parse.writers.spelling import DECIMALS, SHARES, SPELLINGS

_THOUSAND = pa.array([f"{i:03d}" for i in range(1000)])
_QUOTED = r'[,"\r\n]'


def encoded(frame: pd.DataFrame, spellings: Sequence[str]) -> memoryview:
    """The rows of a frame as the text of a CSV file, in UTF-8.

    Raises:
        UnicodeEncodeError: A string holds what UTF-8 cannot (a lone surrogate).
    """
    columns = [_spelled(frame.iloc[:, i], spelling) for i, spelling in enumerate(spellings)]
    rows = pc.binary_join_element_wise(*columns, ",")
    lines = pc.binary_join_element_wise(rows, "", "\n")
    lines = lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines
    offsets = np.frombuffer(lines.buffers()[1], dtype=_offset(lines))
    begin, end = int(offsets[lines.offset]), int(offsets[lines.offset + len(lines)])
    return memoryview(lines.buffers()[2])[begin:end]


def _offset(array: Any) -> Any:
    return np.int64 if pa.types.is_large_string(array.type) else np.int32


def _spelled(column: pd.Series, spelling: str) -> Any:
    known = column.notna().to_numpy(dtype=bool)
    if spelling in DECIMALS:
        text = _fixed(column, known, *DECIMALS[spelling])
    elif spelling in SHARES:
        text = _distinct(column[known], SPELLINGS[spelling])
    elif spelling == "ids" and isinstance(column.array, IdsArray):
        text = _quoted(_ids(column.array[known]))
    else:
        text = _values(column[known])
    if known.all():
        return text
    number = np.where(known, np.cumsum(known) - 1, len(text))
    padded = pa.concat_arrays([_whole(text), pa.array(["None"], type=pa.string())])
    return padded.take(pa.array(number))


def _whole(text: Any) -> Any:
    whole = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
    return whole.cast(pa.string())


def _values(column: pd.Series) -> Any:
    if pd.api.types.is_bool_dtype(column.dtype):
        truth = column.to_numpy(dtype=bool)
        return pc.if_else(pa.array(truth), "True", "False")
    if pd.api.types.is_integer_dtype(column.dtype):
        return pa.array(column.to_numpy(dtype=np.int64)).cast(pa.string())
    return _distinct(column, SPELLINGS["value"])


def _distinct(column: pd.Series, spell: Callable[[pd.Series], list[str]]) -> Any:
    """Spell each value once."""
    code, values = pd.factorize(column)
    text = _quoted(pa.array(spell(pd.Series(values)), type=pa.string()))
    return text.take(pa.array(code.astype(np.int64)))


def _quoted(text: Any) -> Any:
    """Quote what needs it, as the csv module does."""
    where = pc.match_substring_regex(text, _QUOTED)
    if not pc.any(where).as_py():
        return text
    mask = np.asarray(where)
    odd = text.filter(where).to_pylist()
    known = {value: _by_csv(value) for value in dict.fromkeys(odd)}
    quoted = pa.array([known[value] for value in odd], type=pa.string())
    return pc.replace_with_mask(_whole(text), pa.array(mask), quoted)


def _by_csv(value: str) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerow([value, ""])  # quotes both of them
    return file.getvalue()[: -len(",\r\n")]


def _fixed(column: pd.Series, known: Any, digit_ns: int, decimals: int) -> Any:
    ns = column[known].to_numpy(dtype=np.int64)
    digits = (np.abs(ns) + digit_ns // 2) // digit_ns
    head, last = np.divmod(digits, 1000)
    parts = [_THOUSAND.take(pa.array(last))]
    if decimals == 6:
        head, middle = np.divmod(head, 1000)
        parts.insert(0, _THOUSAND.take(pa.array(middle)))
    fraction = pc.binary_join_element_wise(*parts, "") if len(parts) > 1 else parts[0]
    text = pc.binary_join_element_wise(pa.array(head).cast(pa.string()), fraction, ".")
    negative = (ns < 0) & (digits > 0)
    if negative.any():
        sign = pc.if_else(pa.array(negative), "-", "")
        text = pc.binary_join_element_wise(sign, text, "")
    return text


def _ids(lists: IdsArray) -> Any:
    """Ranges, as `schema.encode_ids` makes them."""
    flat, lengths = lists.flat, lists.lengths
    if not len(flat):
        return pa.array([""] * len(lists), type=pa.string())
    step = np.zeros(len(flat), dtype=np.int64)  # from each id to the next one of its list
    step[:-1] = np.diff(flat)
    starts = starts_of(lengths)
    step[(starts[1:] - 1)[lengths > 0]] = 0
    runs = np.abs(step) == 1
    opens = runs & np.concatenate([[True], (step[1:] != step[:-1])])
    # A run that turns back at once is cut by the order in which the encoder meets it.
    turns = opens & np.concatenate([[False], runs[:-1]])
    follows = np.concatenate([[False], runs[:-1]])
    alone = ~runs & ~follows
    begin = np.flatnonzero(opens | alone)
    last = np.flatnonzero(alone | (follows & ~runs))
    if turns.any():
        return _with_turns(lists, turns, starts)
    first, final = flat[begin], flat[last]
    left = pa.array(first).cast(pa.string())
    both = pc.binary_join_element_wise(left, pa.array(final).cast(pa.string()), "-")
    text = pc.if_else(pa.array(begin != last), both, left)
    offsets = np.searchsorted(begin, starts)
    joined = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), _whole(text))
    return pc.binary_join(joined, ",")


def _with_turns(lists: IdsArray, turns: Any, starts: Ints) -> Any:
    row = np.searchsorted(starts, np.flatnonzero(turns), side="right") - 1
    odd = np.zeros(len(lists), dtype=bool)
    odd[row] = True
    spelled = SPELLINGS["ids"](pd.Series(lists[odd]))
    usual = _whole(_ids(lists[~odd]))
    both = pa.concat_arrays([usual, pa.array(spelled, type=pa.string())])
    number = np.empty(len(lists), dtype=np.int64)
    number[~odd] = np.arange(len(usual))
    number[odd] = np.arange(len(usual), len(both))
    return both.take(pa.array(number))
