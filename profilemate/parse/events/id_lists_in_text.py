"""Lists of block ids (`5-7,12`) of many events at once."""

from __future__ import annotations

import numpy as np

from profilemate.parse.columns.arrays import Bools, Ints, ranges, starts_of
from profilemate.parse.columns.id_lists import IdLists
from profilemate.parse.events.digits import Text, integers
from profilemate.schema import MAX_IDS

_COMMA, _DASH = 44, 45
_AT_ONCE = 1 << 22
"""Ids that are made at once: where lists hold more, the exact decoder takes them one by one."""


def read_ids(text: Text, start: Ints, end: Ints) -> tuple[IdLists, Bools]:
    """The lists at some places, and which of them cannot be read here."""
    length = end - start
    at = ranges(start, length)
    owner = np.repeat(np.arange(len(start)), length)
    separator = (text.bytes[at] == _COMMA) | (text.bytes[at] == _DASH)
    cut, its = at[separator], owner[separator]
    some = np.flatnonzero(length > 0)
    # Every list that is not empty has one number more than separators.
    # Two sorted halves each: a merge is all that a stable sort has to do.
    first = np.sort(np.concatenate([start[some], cut + 1]), kind="stable")
    last = np.sort(np.concatenate([cut, end[some]]), kind="stable")
    of = np.sort(np.concatenate([some, its]), kind="stable")
    bad = np.zeros(len(start), dtype=bool)
    # A minus sign is a dash of ours: without digits in front of it the number is empty.
    value, wrong = integers(text, first, last)
    wrong |= text.bytes[np.minimum(first, last)] == _DASH
    to = np.zeros(len(first), dtype=bool)
    inner = np.flatnonzero(of[1:] == of[:-1]) + 1
    to[inner] = text.bytes[first[inner] - 1] == _DASH
    wrong[1:] |= to[1:] & to[:-1]
    run = np.flatnonzero(~to)
    upto = np.append(to[1:], False)[run] if len(run) else run.astype(bool)
    begin = value[run]
    finish = np.where(upto, value[np.minimum(run + 1, len(value) - 1)], begin)
    count = np.abs(finish - begin) + 1
    wrong[run[(count < 1) | (count > MAX_IDS)]] = True
    total = np.zeros(len(start), dtype=np.int64)
    np.add.at(total, of[run], np.clip(count, 0, MAX_IDS))
    if total.sum() > _AT_ONCE:
        bad |= total > 1
    bad |= total > MAX_IDS
    bad[of[wrong]] = True
    if bad.any():
        return IdLists.none(len(start)), bad
    step: Ints = np.where(finish < begin, -1, 1).astype(np.int64)
    offset = ranges(np.zeros(len(count), dtype=np.int64), count)
    flat: Ints = np.repeat(begin, count) + np.repeat(step, count) * offset
    total = starts_of(count)
    list_starts = np.searchsorted(of[run], np.arange(len(start) + 1))
    lengths: Ints = np.diff(total[list_starts])
    return IdLists(flat, lengths, np.zeros(len(start), dtype=bool)), bad
