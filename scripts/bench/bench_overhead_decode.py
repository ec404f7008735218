"""A decode step through vLLM's own scheduler, with our hooks and without (for bench_overhead)."""

from __future__ import annotations

import gc
import random
import statistics
import time
from typing import Any

from bench_overhead_common import Null, annotate

SEQUENCES = 256
CYCLE = 32
"""Steps after which a decode step is the same again: each sequence has filled one block of 32."""
ROUNDS, PARTS = 40, 4
"""Cycles with and without hooks, and in how many parts they are looked at for the scatter."""


def decode() -> dict[str, Any]:
    """A decode step of 256 sequences through vLLM's own scheduler, hooks in and out in turn."""
    from scheduler_load import Load

    load = Load(40_000, max_seqs=SEQUENCES, max_len=32_768)
    for i in range(SEQUENCES):
        load.add([random.randrange(250) for _ in range(60 + i % 40)], 30_000)
    for _ in range(5):
        load.step()
    gc.collect()
    gc.freeze()  # as vLLM's EngineCore does
    timed = load.scheduler = Timed(load.scheduler)
    counted, silent = Null(), Null()
    counted.counts_events = True
    package = annotate(counted)
    load.step()  # tells the session
    counted.messages = counted.characters = counted.events = 0
    for _ in range(CYCLE):
        load.step()
    package.uninstall()
    plain: list[list[int]] = []
    hooked: list[list[int]] = []
    for _ in range(ROUNDS):
        package = annotate(silent)
        hooked.append(_cycle(load, timed))
        package.uninstall()
        plain.append(_cycle(load, timed))
    parts = [_quartile(hooked[i::PARTS]) - _quartile(plain[i::PARTS]) for i in range(PARTS)]
    return {
        "sequences": SEQUENCES,
        "scheduler_us": _quartile(plain) / 1e3,
        "added_us": (_quartile(hooked) - _quartile(plain)) / 1e3,
        "added_from_us": min(parts) / 1e3,
        "added_to_us": max(parts) / 1e3,
        "messages": counted.messages / CYCLE,
        "events": counted.events / CYCLE,
        "message_bytes": counted.characters / max(counted.messages, 1),
    }


class Timed:
    """A scheduler whose two calls of a step are timed; making up the model's answer is not.

    CPU time of the thread: what else runs on the machine adds to the wall's.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.ns = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def schedule(self) -> Any:
        """The first call of a step."""
        start = time.thread_time_ns()
        output = self._scheduler.schedule()
        self.ns = time.thread_time_ns() - start
        return output

    def update_from_output(self, output: Any, answer: Any) -> Any:
        """The other."""
        start = time.thread_time_ns()
        found = self._scheduler.update_from_output(output, answer)
        self.ns += time.thread_time_ns() - start
        return found


def _cycle(load: Any, timed: Timed) -> list[int]:
    """Ns of each step of a cycle; one cycle before it lets the interpreter settle."""
    for _ in range(CYCLE):
        load.step()
    found = []
    for _ in range(CYCLE):
        load.step()
        found.append(timed.ns)
    return found


def _quartile(cycles: list[list[int]]) -> float:
    """Ns of a step. Those at one place of the cycle do the same: noise only adds to them."""
    quartiles = [statistics.quantiles(place)[0] for place in zip(*cycles, strict=True)]
    return float(statistics.mean(quartiles))
