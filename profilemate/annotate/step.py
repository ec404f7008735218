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
    from profilemate.annotate.graphs import Graphs
    from profilemate.annotate.outlet import Outlet
    from profilemate.annotate.sink import Sink

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
        counting: Its range is open, and launches of the model are only counted. Asked by the code
            `_REPLAY` in `hooks/cuda_graph_replays.py`, in text that no type checker reads.
        dummy: It is a dummy batch.
        launched: Launches of the model so far.
        engine: The engine's number as events have it.
    """

    def __init__(self, outlet: Outlet, graphs: Graphs) -> None:
        self._outlet = outlet
        self._graphs = graphs
        self.each_launch = False
        self.reset()

    def reset(self) -> None:
        """Forget everything but the settings."""
        self.running = self.counting = self.dummy = False
        self.launched = 0
        self._has_mode = self._has_range = False
        self._open_in: tuple[Sink, ...] = ()
        self._number: int | None = None
        self.engine: int | None = None
        self._facts = NO_FACTS
        self._start = 0  # ns, monotonic
        self._expected: int | None = None  # launches; None: unknown
        self._awaits_mode = True

    def begin(
        self,
        number: int | None,
        facts: Facts = NO_FACTS,
        *,
        dummy: bool = False,
        engine: int | None = None,
    ) -> None:
        """The call begins.

        Args:
            number: The step's, None for one that no scheduler knows.
            facts: What is to run.
            dummy: It is a dummy batch.
            engine: The engine's number as events have it.
        """
        self._start = monotonic_ns()
        self.running, self.dummy, self.launched = True, dummy, 0
        self._has_mode = self._has_range = False
        self._open_in = ()
        self._number, self._facts, self._expected = number, facts, None
        self.engine = engine
        if not (self._awaits_mode and self._outlet.identity.graphs):
            # No hook will say the mode, but the range has to be there: launches are found by it.
            self._push(NO_KEY, None)

    def dispatched(self, key: Key, unpadded: int | None) -> None:
        """VLLM has chosen how to run it: `key` is the graph that it will launch, or mode NONE.

        Only the first choice of a step is its own: later ones are a drafter's, or the same again.
        """
        if not self.running or self._has_mode:
            return
        self._has_mode = True
        if not self._has_range:
            if self._outlet.watching and self._number is not None:
                self._outlet.advance(
                    self._number
                )  # vLLM's profiler may have started or ended since
            self._push(key, unpadded)

    def _push(self, key: Key, unpadded: int | None) -> None:
        outlet = self._outlet
        if not outlet.active:
            return
        tokens, *others = self._facts
        tokens = tokens if unpadded is None or self.dummy else unpadded
        self._expected = self._graphs.launches(key)
        ago = monotonic_ns() - self._start
        dummy = self.dummy or None
        values = (self._number, *key, tokens, *others, self._expected, dummy, self.engine)
        self._open_in = outlet.push(PREFIX + _STEP(ago, None, *values))
        self._has_range = True
        self.counting = not self.each_launch

    def end(self) -> None:
        """The call has ended, perhaps with an exception: close its range, emit what it lacks."""
        outlet = self._outlet
        if not self.running:  # its begin failed
            return
        has_range, dummy = self._has_range, self.dummy or None
        self.running = self.counting = self.dummy = False
        if self._open_in:
            outlet.pop(self._open_in)
            self._open_in = ()
        if not outlet.active:
            return
        now = monotonic_ns()
        if not has_range:
            counted = (self.launched, dummy, self.engine)
            values: tuple[Any, ...] = (self._number, *NO_KEY, *self._facts, *counted)
            outlet.add(_STEP, self._start, now, values)
        elif self.launched or self._expected:
            values = (self._number, self.launched, dummy, self.engine)
            outlet.add(_END, self._start, now, values)
        if self._facts[0] or dummy:
            # A vLLM whose dispatch no hook finds: from now on the range opens without the mode.
            self._awaits_mode = self._has_mode
        if self._graphs.pending:
            self._graphs.emit_unclaimed()
