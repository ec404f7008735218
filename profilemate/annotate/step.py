"""The model execution that runs now: one range, opened as soon as its mode is known.

What a recorder finds inside the range is the step's: its launches follow each other on this thread,
so a piecewise step of 61 launches needs no range for each.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from profilemate.annotate.graphs import NO_KEY, Key
from profilemate.schema import KINDS, PREFIX

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter, Sink

Facts = tuple[int | None, int | None, int | None, int | None]
"""Tokens scheduled, requests, tokens of those in prefill, tokens of those in decode."""

NO_FACTS: Facts = (None, None, None, None)

_STEP = KINDS["step"].encode
_END = KINDS["step.end"].encode


class Step:
    """The state of `Worker.execute_model` or `execute_dummy_batch`, between its begin and end.

    Attributes:
        each_launch: Every launch has a range of its own, inside a step too.
        running: Between begin and end.
        counting: Its range is open, and launches of the model are only counted.
        dummy: It is a dummy batch.
        seen: Launches of the model so far.
    """

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self.each_launch = False
        self.reset()

    def reset(self) -> None:
        """Forget everything but the settings."""
        self.running = self.counting = self.dummy = False
        self.seen = 0
        self._told = self._pushed = False
        self._open: tuple[Sink, ...] = ()
        self._number: int | None = None
        self._facts = NO_FACTS
        self._start = 0
        self._expected: int | None = None
        self._awaits = True

    def begin(self, number: int | None, facts: Facts = NO_FACTS, *, dummy: bool = False) -> None:
        """The call begins; `number` is the step's, None for one that the scheduler knows not."""
        self._start = monotonic_ns()
        self.running, self.dummy, self.seen = True, dummy, 0
        self._told = self._pushed = False
        self._open = ()
        self._number, self._facts, self._expected = number, facts, None
        if not (self._awaits and self._emitter.identity.graphs):
            # No hook will tell the mode, but the range has to be there: launches are found by it.
            self._push(NO_KEY, None)

    def dispatched(self, key: Key, unpadded: int | None) -> None:
        """VLLM has chosen how to run it: `key` is the graph that it will launch, or mode NONE.

        Only the first choice of a step is its own: later ones are a drafter's, or the same again.
        """
        if not self.running or self._told:
            return
        self._told = True
        if not self._pushed:
            if self._emitter.watching and self._number is not None:
                self._emitter.turn(self._number)  # vLLM's profiler may have started or ended since
            self._push(key, unpadded)

    def _push(self, key: Key, unpadded: int | None) -> None:
        emitter = self._emitter
        if not emitter.active:
            return
        tokens, *others = self._facts
        tokens = tokens if unpadded is None or self.dummy else unpadded
        self._expected = emitter.graphs.launches(key)
        ago = monotonic_ns() - self._start
        values = (self._number, *key, tokens, *others, self._expected, self.dummy or None)
        self._open = emitter.push(PREFIX + _STEP(ago, None, *values))
        self._pushed = True
        self.counting = not self.each_launch

    def end(self) -> None:
        """The call has ended, perhaps with an exception."""
        emitter = self._emitter
        if not self.running:  # its begin failed
            return
        pushed, dummy = self._pushed, self.dummy or None
        self.running = self.counting = self.dummy = False
        if self._open:
            emitter.pop(self._open)
            self._open = ()
        if not emitter.active:
            return
        now = monotonic_ns()
        if not pushed:
            values: tuple[Any, ...] = (self._number, *NO_KEY, *self._facts, self.seen, dummy)
            emitter.add(_STEP, self._start, now, values)
        elif self.seen or self._expected:
            emitter.add(_END, self._start, now, (self._number, self.seen, dummy))
        if self._facts[0] or dummy:
            # A vLLM whose dispatch no hook finds: from now on the range opens without the mode.
            self._awaits = self._told
        if emitter.graphs.pending:
            emitter.graphs.settle()
