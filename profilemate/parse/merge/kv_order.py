"""Block operations in their true order: put on the trace's clock and into the log."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from profilemate.parse.columns.arrays import NONE, Ints
from profilemate.parse.columns.packed import pack, picked
from profilemate.parse.columns.partition import Batch, Divided
from profilemate.parse.columns.spool import Blocks
from profilemate.parse.events.kv_rows import KvRows
from profilemate.parse.trace.kv_log import KvLog, Segment, Texts
from profilemate.schema import KV_OPS


class Placed(Protocol):
    """The messages on the trace's clock and in their true order."""

    pid: Ints
    rank: Ints
    tid: Ints

    def began(self, message: Ints, ago: Ints) -> Ints:
        """When events began."""

    def lasted(self, message: Ints, began: Ints) -> Ints:
        """How long events took whose end is that of their message's range."""


def ordered(rows: KvRows, messages: Placed) -> tuple[KvLog, dict[str, int]]:
    """The log, and how many operations of each kind are in it.

    Args:
        rows: What was read; it is used up.
        messages: Their messages. The operations of a process follow each other, in the order of
            their messages and of their places in these.
    """
    counts = np.zeros(len(KV_OPS), dtype=np.int64)
    blocks = Blocks(rows.budget)
    segments: list[Segment] = []
    seqs: dict[int, int] = {}
    for batch in _batches(rows, messages):
        rank = messages.rank[batch["message"]]
        sorted_ = picked(batch, np.lexsort((batch["place"], rank)))
        counts += np.bincount(sorted_["op"], minlength=len(counts))
        pid = messages.pid[sorted_["message"]]
        bounds = [0, *(np.flatnonzero(np.diff(pid)) + 1).tolist(), len(pid)]
        for begin, end in pairwise(bounds):
            process = int(pid[begin])
            some = picked(sorted_, slice(begin, end))
            number = blocks.add(pack(_timed(some, messages)))
            seq = seqs.get(process, 0)
            segments.append(Segment(number, end - begin, process, seq))
            seqs[process] = seq + end - begin
    named = {op: int(n) for op, n in zip(KV_OPS, counts, strict=True) if n}
    return KvLog(blocks, segments, Texts(list(rows.texts))), named


def _timed(batch: Batch, messages: Placed) -> Batch:
    message, ago, dur = batch.pop("message"), batch.pop("ago"), batch["dur"]
    del batch["place"]
    ts = messages.began(message, np.where(ago == NONE, 0, ago))
    batch["dur"] = np.where(dur == NONE, messages.lasted(message, ts), dur)
    return {"ts": ts, "tid": messages.tid[message], **batch}


def _batches(rows: KvRows, messages: Placed) -> Iterator[Batch]:
    """All operations that count, in batches each of which comes before the next one."""
    spans: list[tuple[int, int]] = []
    for number in range(len(rows)):
        rank = messages.rank[rows.batch(number, ("message",))["message"]]
        spans.append((int(rank.min()), int(rank.max())))
    keep = np.ones(len(messages.rank), dtype=bool)
    keep[sorted(rows.dropped)] = False
    kept = (batch for number in range(len(rows)) if (batch := _kept(rows, number, keep)))
    if all(one[1] < other[0] for one, other in pairwise(spans)):
        yield from kept
        return
    divided = Divided(rows.budget)
    for batch in kept:
        divided.add(batch)
    yield from divided.parts(rows.budget.rows, lambda batch: messages.rank[batch["message"]])


def _kept(rows: KvRows, number: int, keep: Any) -> Batch | None:
    """A batch without messages that do not count; None if nothing is left."""
    batch = rows.batch(number)
    rows.forget(number)
    mine = keep[batch["message"]]
    if mine.all():
        return batch
    return picked(batch, mine) if mine.any() else None
