"""From hooks to sinks: events are buffered, spelled, and leave as one batch per scheduler step."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from multiprocessing.util import Finalize
from time import monotonic_ns
from typing import Any

from profilemate import schema
from profilemate.annotate.faults import Faults, say, shield
from profilemate.annotate.graphs import Graphs
from profilemate.annotate.hook import HookStatus
from profilemate.annotate.identity import Identity
from profilemate.annotate.outlet import Encode
from profilemate.annotate.settings import Steps
from profilemate.annotate.sink import Sink
from profilemate.annotate.state import EngineState, PoolInfo
from profilemate.annotate.step import Step
from profilemate.annotate.window import Window
from profilemate.schema import KINDS

SESSION_EVERY_NS = 2_000_000_000
"""How often a process says who it is: a recording of some seconds then has it at least once."""

MAX_BUFFERED = 8192
"""Events after which a batch leaves although no step has ended."""

_CONFIG = KINDS["config"].encode
_HOOK = KINDS["hook"].encode

_BATCH = schema.MAX_MESSAGE - 1024  # leaves room for the head, so that most batches fit one message


Buffer = list[tuple[Encode, int, int, tuple[Any, ...]]]
"""Events: the encoder of each one's kind, its begin and end (ns, monotonic), its fields."""


class Emitter:
    """Collects the events of one process.

    Attributes:
        on: False when nobody will ever record here; hooks then keep nothing.
        active: Whether a sink listens; wrappers that only emit events ask this first.
        watching: Whether sinks come and go: then every step begins with `advance`.
        window: Which steps are recorded.
        state: What hooks tell each other.
        step: The model execution that is running.
        graphs: The CUDA graphs that were captured.
        faults: Faults of our own.
        identity: What this process says of itself.

    Args:
        open_sinks: Opens the sinks of this process; with none, its second value says why.
        hook_status: What became of each hook; said with every session.
        identity: A fresh one if not given.
        steps: The only steps to record; None for all.
    """

    def __init__(
        self,
        open_sinks: Callable[[], tuple[list[Sink], str]],
        hook_status: Callable[[], Sequence[HookStatus]] = lambda: (),
        identity: Identity | None = None,
        steps: Steps | None = None,
    ) -> None:
        self.on = True
        self.faults = Faults()
        self.identity = identity or Identity()
        # Made once: wrappers hold these.
        self.state = EngineState()
        self.graphs = Graphs(self)
        self.step = Step(self, self.graphs)
        self.window = Window(steps)
        self._open_sinks = open_sinks
        self._hook_status = hook_status
        self._shielded_finish = shield("flush", self.faults, self.finish)
        self._reset()
        os.register_at_fork(after_in_child=self._after_fork)

    def _reset(self) -> None:
        # Until the sinks are known, everything is kept for them.
        self.active = self.watching = True
        self.window.reset()
        self.state.reset()
        self._buffer: Buffer = []
        self.step.reset()
        self.graphs.pending.clear()
        self._sinks: list[Sink] | None = None  # not opened yet
        self._listening: tuple[Sink, ...] = ()
        self._seq: dict[int, int] = {}  # id() of a sink -> number of its last message, from 1
        self._split_messages = 0
        self._session_due = 0  # ns, monotonic

    def _after_fork(self) -> None:
        # The parent keeps its own buffer, numbers and sinks; patches are inherited.
        if self.on:
            self._reset()
            self.identity.forget_process()

    # ------------------------------------------------------------------ for hooks

    def add(self, encode: Encode, start: int, end: int, values: tuple[Any, ...]) -> None:
        """Buffer one event: its kind's encoder, begin and end (ns, monotonic), its fields."""
        buffer = self._buffer
        buffer.append((encode, start, end, values))
        if len(buffer) >= MAX_BUFFERED:
            self.flush()

    def push(self, text: str) -> tuple[Sink, ...]:
        """Open a range on the calling thread, in every sink that listens; returns these.

        They are to be given to `pop`: until then some may have stopped to listen, and others begun.
        """
        sinks = self._listening if self._sinks is not None else self._listeners()
        for sink in sinks:
            sink.push(text)
        return sinks

    def pop(self, sinks: tuple[Sink, ...]) -> None:
        """Close the last range of the calling thread in the sinks that `push` opened it in."""
        for sink in sinks:
            sink.pop()

    def pool(self, pool: Any) -> PoolInfo:
        """What we know of a pool; one that was made before the hooks is met here first."""
        # A new pool at the address of a dead one was met by the hook of its __init__.
        return self.state.pools.get(id(pool)) or self.new_pool(pool)

    def new_pool(self, pool: Any) -> PoolInfo:
        """Number a pool; the next session says its facts."""
        info = self.state.add_pool(pool)
        self.touch_session()
        return info

    def touch_session(self) -> None:
        """Repeat the session with the next batch, because something in it changed."""
        self._session_due = 0

    # ------------------------------------------------------------------ who listens

    def must_advance(self, step: int) -> bool:
        """Whether there is anything to do for `advance`.

        Asked before every step by the code `COUNT` in `wrapping.py`.
        """
        return self._sinks is None or bool(self.graphs.pending) or self.window.changes_at(step)

    def advance(self, step: int) -> None:
        """A boundary between steps: sinks begin or cease to listen. `step` is what comes next."""
        if self._sinks is None:
            self._listeners()
        if self.graphs.pending and not self.step.running:
            self.graphs.emit_unclaimed()  # no owner has claimed them, and none will
        if self.watching and self.window.changes_at(step):
            self.window.advance(step)
            self._listen(tuple(s for s in self._sinks or () if self.window.admits(s.scope)))

    def _listen(self, listening: tuple[Sink, ...]) -> None:
        """From here on these sinks listen: the leaving get the rest, the coming what they missed.

        Events go to all that listen. So where one listens on, what is buffered for it stays, and
        what hooks know of block operations is still true.
        """
        leaving = [sink for sink in self._listening if sink not in listening]
        coming = [sink for sink in listening if sink not in self._listening]
        if leaving:
            self.flush()
        self._listening, self.active = listening, bool(listening)
        for sink in leaving:
            sink.flush()
        if not self.active or len(coming) == len(listening):
            self._buffer = []
            self.state.forget_operations()
        if leaving and not self.active:
            self.state.armed = False
        if coming:
            self._send_preamble(coming)

    def send_preamble(self) -> None:
        """A recorder that follows every sink's events begins now, in the middle of the run."""
        self.flush()
        self._send_preamble(self._listening)

    def _send_preamble(self, sinks: Sequence[Sink]) -> None:
        """Say all that came before, in short: then a recording that begins here stands alone."""
        if not self.identity.has_role:  # the session comes when it is known who this is
            return
        now = monotonic_ns()
        if len(sinks) == len(self._listening):
            self._session_due = now + SESSION_EVERY_NS
        self._send(self._session(now) + self.graphs.summaries(now), now, sinks)

    # ------------------------------------------------------------------ on their way out

    def _listeners(self) -> tuple[Sink, ...]:
        """The sinks that listen; opens the sinks if that was not done."""
        if self._sinks is None:
            self._sinks, why_none = self._open_sinks()
            if not self._sinks:
                self.on = False
                say(f"nothing is recorded in process {os.getpid()}: {why_none}")
            asked = self.window.steps is not None
            self.watching = asked or any(sink.scope != "always" for sink in self._sinks)
            self.watching &= self.on
            self._listening = () if asked else tuple(s for s in self._sinks if s.scope == "always")
            self.active = bool(self._listening)
            # multiprocessing clears its finalizers in a forked child and skips atexit there, so
            # this is registered by each process itself, when it has something to say.
            Finalize(None, self._shielded_finish, exitpriority=100)
        return self._listening

    def flush(self) -> None:
        """Send what is buffered, as one batch or as many as its length asks for."""
        if not self.active:
            self._buffer.clear()  # what a call that began in a window emitted after its end
            return
        now = monotonic_ns()
        due = now >= self._session_due and self.identity.has_role
        if not (self._buffer or due):
            return
        sinks = self._listening if self._sinks is not None else self._listeners()
        buffer, self._buffer = self._buffer, []
        if not sinks:
            return
        try:
            texts = [encode(now - start, end - start, *v) for encode, start, end, v in buffer]
        except Exception:  # noqa: BLE001 - the guard: one of them is not what its kind says
            texts = self._spell_each(buffer, now)
        if due:
            self._session_due = now + SESSION_EVERY_NS
            texts[:0] = self._session(now)
        self._send(texts, now, sinks)

    def _spell_each(self, buffer: Buffer, now: int) -> list[str]:
        """Spell what can be spelled; the rest is a fault of the kind's, each."""
        texts = []
        for encode, start, end, values in buffer:
            spell = shield(f"the text of {encode.__name__}", self.faults, encode)
            text = spell(now - start, end - start, *values)
            texts += [] if text is None else [text]
        return texts

    def finish(self) -> None:
        """Send what is buffered, and have the sinks bring it to safety."""
        self.flush()
        for sink in self._sinks or ():
            sink.flush()

    def _send(self, texts: list[str], now: int, sinks: Sequence[Sink]) -> None:
        """Send spelled events of the time `now` (ns, monotonic), in one batch or several."""
        body = " | ".join(texts)
        if len(body) <= _BATCH:  # nearly always
            self._send_batch(body, now, sinks)
            return
        for batch in _batches(texts):
            self._send_batch(" | ".join(batch), now, sinks)

    def _send_batch(self, body: str, now: int, sinks: Sequence[Sink]) -> None:
        spelled: dict[int, list[str]] = {}
        for sink in sinks:
            # A sink that did not listen for a while has lost nothing: it has numbers of its own.
            seq = self._seq[id(sink)] = self._seq.get(id(sink), 0) + 1
            if seq not in spelled:
                spelled[seq] = self._split(schema.encode_batch((body,), t=now, seq=seq))
            for part in spelled[seq]:
                sink.mark(part)

    def _split(self, message: str) -> list[str]:
        if len(message) <= schema.MAX_MESSAGE:
            return [message]
        self._split_messages += 1
        return schema.split(message, number=self._split_messages)

    def _session(self, now: int) -> list[str]:
        """The session, spelled: who this process is, its engines and pools, and its hooks."""
        texts = [KINDS["session"].encode(0, 0, *self.identity.session(now, self.faults.count))]
        self.state.find_owners()
        for engine in self.state.engines.every:
            values = engine.values()
            texts += [] if values is None else [_CONFIG(0, 0, *values)]
        for info in self.state.pools.values():
            pool = info.pool()
            if pool is not None:
                used = info.total - pool.get_num_free_blocks()
                values = (info.number, *info.facts, used, info.owner, info.engine)
                texts.append(KINDS["kv.pool"].encode(0, 0, *values))
        texts += [
            _HOOK(0, 0, h.name, h.state, h.target or None, h.why or None, h.faults or None)
            for h in self._hook_status()
        ]
        return texts


def _batches(texts: list[str]) -> list[list[str]]:
    """Cut spelled events into batches that fit a message, unless one alone does not."""
    batches: list[list[str]] = [[]]
    room = _BATCH
    for text in texts:
        room -= len(text) + 3
        if room < 0 and batches[-1]:
            batches.append([])
            room = _BATCH - len(text) - 3
        batches[-1].append(text)
    return batches
