"""Block operations in their true order: put on the trace's clock and into the log."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from profilemate.parse.columns.arrays import NONE, Bools
from profilemate.parse.columns.packed import picked
from profilemate.parse.columns.partition import Batch, Divided
from profilemate.parse.events.kv_rows import KvRows
from profilemate.parse.merge.message_order import OrderedMessages
from profilemate.parse.trace.kv_log import KvLog, KvLogWriter, Texts
from profilemate.schema import KV_OPS


def kv_log(rows: KvRows, messages: OrderedMessages) -> tuple[KvLog, dict[str, int]]:
    """The log, and how many operations of each kind are in it.

    Args:
        rows: What was read; it is used up.
        messages: Their messages. The operations of a process follow each other, in the order of
            their messages and of their places in these.
    """
    counts = np.zeros(len(KV_OPS), dtype=np.int64)
    writer = KvLogWriter(rows.budget)
    for batch in _batches(rows, messages):
        rank = messages.rank[batch["message"]]
        in_order = picked(batch, np.lexsort((batch["place"], rank)))
        counts += np.bincount(in_order["op"], minlength=len(counts))
        pid = messages.pid[in_order["message"]]
        bounds = [0, *(np.flatnonzero(np.diff(pid)) + 1).tolist(), len(pid)]
        for begin, end in pairwise(bounds):
            of_process = picked(in_order, slice(begin, end))
            writer.add(int(pid[begin]), _on_trace_clock(of_process, messages))
    named = {op: int(n) for op, n in zip(KV_OPS, counts, strict=True) if n}
    return writer.log(Texts(list(rows.texts))), named


def _on_trace_clock(batch: Batch, messages: OrderedMessages) -> Batch:
    """The operations as the log has them: with `ts` and `dur`, ns, instead of their message."""
    message, ago, dur = batch.pop("message"), batch.pop("ago"), batch["dur"]
    del batch["place"]
    ts = messages.began(message, np.where(ago == NONE, 0, ago))
    batch["dur"] = np.where(dur == NONE, messages.lasted(message, ts), dur)
    return {"ts": ts, "tid": messages.tid[message], **batch}


def _batches(rows: KvRows, messages: OrderedMessages) -> Iterator[Batch]:
    """All operations that count, in batches each of which comes before the next one."""
    spans: list[tuple[int, int]] = []  # lowest and highest rank of each batch
    for number in range(len(rows)):
        rank = messages.rank[rows.batch(number, ("message",))["message"]]
        spans.append((int(rank.min()), int(rank.max())))
    counts = np.ones(len(messages.rank), dtype=bool)  # by message
    counts[sorted(rows.dropped)] = False
    batches = (b for number in range(len(rows)) if (b := _counting(rows, number, counts)))
    if all(one[1] < other[0] for one, other in pairwise(spans)):
        yield from batches
        return
    divided = Divided(rows.budget, rows.budget.rows)
    for batch in batches:
        divided.add(batch)
    yield from divided.parts(lambda batch: messages.rank[batch["message"]])


def _counting(rows: KvRows, number: int, counts: Bools) -> Batch | None:
    """A batch without operations of messages that do not count; None if nothing is left."""
    batch = rows.batch(number)
    rows.forget(number)
    in_batch = counts[batch["message"]]
    if in_batch.all():
        return batch
    return picked(batch, in_batch) if in_batch.any() else None
