"""The sidecar: our messages as a Chrome trace of our own, one file per process.

vLLM's torch profiler leaves no trace of the process that the scheduler and the KV cache live in,
and without any recorder there is no trace at all. A sidecar is the array form of Chrome's JSON, one
event a line, so Perfetto opens it as it is, even when its end is missing. Its times are those of
the wall clock, as Kineto's are.

Lines are collected and given to the kernel every `interval` operations and, by a thread, when a
fifth of a second has passed since the last one. No signal handler is needed for that, and none is
installed: vLLM's own are left alone, and a process that is killed loses a fifth of a second.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from threading import get_native_id
from time import monotonic_ns

import profilemate
from profilemate import schema
from profilemate.annotate import current, finish, session_dir
from profilemate.annotate.faults import Faults, say, shield
from profilemate.annotate.identity import wall_offset
from profilemate.annotate.settings import Settings
from profilemate.annotate.sink import Scope, Sink
from profilemate.annotate.sinks.segments import Segments, end_of
from profilemate.schema.live import MARKERS, SIDECAR

FLUSH_S = 0.2
"""How long a message waits at most before the kernel has it."""

_SESSION = " | session "
_BATCH = schema.PREFIX + "batch "
_PART = schema.PREFIX + "part "
_TIME = re.compile(r" t=(\d+)")
_LATE_NS = 60_000_000_000
"""A message is spelled and written within this; another time is none of this process's clock."""
_HEAD = 120
"""Letters in which a message says its time; only the first of a long message's parts has it."""

_MB = 1 << 20


class SidecarSink:
    """Writes one file per process, opened when the first messages are written.

    Args:
        directory: Gives the session directory; called when the file is opened.
        scope: See `Sink`.
        interval: Operations (events in batches, and ranges) between two writes.
        packed: Pack with gzip.
        cap: Bytes that the files of this process may have; 0 for no end.
        renew: Called when a new segment is due, so that the session is said again in it.
        begun: Called with the first message of a process.
        discard: Called when not even the first file could be opened: nobody may have written.
        zero: Wall clock of the beginning of the run, ns; 0 if nobody knows.
    """

    name = "sidecar"

    def __init__(
        self,
        directory: Callable[[], Path],
        *,
        scope: Scope = "always",
        interval: int = 100,
        packed: bool = False,
        cap: int = 0,
        renew: Callable[[], None] = lambda: None,
        begun: Callable[[], None] = lambda: None,
        discard: Callable[[], None] = lambda: None,
        zero: int = 0,
    ) -> None:
        self.scope: Scope = scope
        self._directory, self._renew, self._begun = directory, renew, begun
        self._discard = discard
        self._interval, self._packed, self._cap, self._zero = interval, packed, cap, zero
        self._begin()
        itself = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forked(itself()))

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._lines: list[str] = []  # not given to the kernel yet
        self._operations = self._messages = 0
        self._said = 0  # time of the last message, ns, monotonic
        # Thread id of the kernel -> its open ranges: text, begin (ns, monotonic).
        self._ranges: dict[int, list[tuple[str, int]]] = {}
        self._files: Segments | None = None
        self._process = ("process", 0, 0, 0)  # role, ranks: data, pipeline, tensor parallel
        self._renewing = self._off = self._watched = False
        self._pid = os.getpid()
        self._offset = wall_offset()  # ns from the monotonic to the wall clock

    # ------------------------------------------------------------------ for the emitter

    def mark(self, text: str) -> None:
        """Record an instant: the one that the message says, which is before it was spelled."""
        with self._lock:
            said, now = _TIME.search(text, 0, _HEAD), monotonic_ns()
            if said is not None and 0 <= now - int(said[1]) < _LATE_NS:
                self._said = int(said[1])
            elif said is not None or not text.startswith(_PART):
                self._said = now
            now = self._said + self._offset
            if self._off:
                return
            if self._renewing or text.find(_SESSION, 0, 120) > 0:
                self._read_session(text)
            self._lines.append(
                f'{{"ph":"i","cat":"profilemate","name":"{text}","pid":{self._pid},'
                f'"tid":{get_native_id()},"ts":{now // 1000}.{now % 1000:03},"s":"t"}},\n'
            )
            self._count(text.count(" | ") or 1)

    def push(self, text: str) -> None:
        """Open a range on this thread; it is written when it closes."""
        tid = get_native_id()
        ranges = self._ranges.get(tid)
        if ranges is None:
            ranges = self._ranges[tid] = []
        ranges.append((text, monotonic_ns()))

    def pop(self) -> None:
        """Close the last range of this thread."""
        end, tid = monotonic_ns(), get_native_id()
        ranges = self._ranges.get(tid)
        if not ranges:  # it was opened before a fork
            return
        text, start = ranges.pop()
        dur, begun = end - start, start + self._offset
        with self._lock:
            if self._off:
                return
            self._lines.append(
                f'{{"ph":"X","cat":"profilemate","name":"{text}","pid":{self._pid},"tid":{tid},'
                f'"ts":{begun // 1000}.{begun % 1000:03},"dur":{dur // 1000}.{dur % 1000:03}}},\n'
            )
            self._count(1)

    def flush(self) -> None:
        """Give the kernel what was collected."""
        with self._lock:
            self._write()

    @property
    def closed(self) -> bool:
        """Whether nothing is recorded any more."""
        return self._off

    def close(self) -> None:
        """End the file; nothing is recorded any more."""
        with self._lock:
            self._write()
            files, self._files, self._off = self._files, None, True
            if files is not None:
                try:
                    files.close(end_of(self._pid, self._messages))
                except OSError as e:
                    self._complain(e)

    # ------------------------------------------------------------------ with the lock held

    def _count(self, operations: int) -> None:
        self._operations += operations
        if not self._watched:
            self._watch()
        if self._operations >= self._interval:
            self._write()

    def _watch(self) -> None:
        """With the first message: see to it that none waits for ever."""
        self._watched = True
        self._begun()
        # After the emitter's own, which flushes; see `Emitter`.
        Finalize(None, shield("the sidecar's end", Faults(), self.close), exitpriority=-50)
        watch = shield("the sidecar's flush", Faults(), _flush_always)
        threading.Thread(
            target=watch, args=(weakref.ref(self),), daemon=True, name="profilemate"
        ).start()

    def _write(self) -> None:
        """Give the kernel what was collected, and ask for a new segment if this one is full."""
        if self._off or not self._lines:
            return
        lines, self._lines = self._lines, []
        self._operations = 0
        self._messages += len(lines)
        try:
            if self._files is None:
                self._files = self._open()
            self._files.write("".join(lines))
        except OSError as e:
            self._fail(e)
            return
        if self._files.full and not self._renewing:
            self._renewing = True
            self._renew()

    def _open(self) -> Segments:
        folder = self._directory() / MARKERS
        return Segments(folder, self._stem(), packed=self._packed, cap=self._cap, head=self._head)

    def _read_session(self, text: str) -> None:
        """Learn from a session who we are; begin a new segment with it, if one is due."""
        is_session = text.find(_SESSION, 0, 120) > 0
        # Whose process it is turns out in steps: an engine finds that it is the worker too.
        if is_session and f" role={self._process[0]} " not in text[:400]:
            self._learn_process(text)
        files = self._files
        if not self._renewing or files is None:
            return
        # Messages of one instant stay together: a segment is put on the clock by itself.
        if is_session or (files.overfull and text.startswith(_BATCH)):
            self._write()
            if not self._off:
                self._rotate(files)

    def _rotate(self, files: Segments) -> None:
        self._renewing = False
        try:
            files.rotate(end_of(self._pid, self._messages))
        except OSError as e:
            self._fail(e)

    def _learn_process(self, text: str) -> None:
        message = schema.decode(text)
        if message is None or message.events[0].kind != "session":
            return
        values = message.events[0].values
        self._process = (
            str(values.get("role", "process")),
            *(int(str(values.get(rank) or 0)) for rank in ("dp", "pp", "tp")),
        )  # type: ignore[assignment]
        if self._files is not None:
            try:
                self._files.rename(self._stem())
                self._files.write(self._process_name())
            except OSError as e:
                self._fail(e)

    def _stem(self) -> str:
        role, dp, pp, tp = self._process
        return f"{role}_dp{dp}_pp{pp}_tp{tp}_{self._pid}"

    def _process_name(self) -> str:
        role, dp, pp, tp = self._process
        name = f"profilemate: {role} dp{dp} pp{pp} tp{tp}"
        return _metadata(self._pid, "process_name", {"name": name})

    def _head(self) -> str:
        """The first lines of a segment: whose it is, and one instant on both clocks."""
        files, mono = self._files, monotonic_ns()
        role, dp, pp, tp = self._process
        facts = {
            "profilemate": profilemate.__version__,
            "role": role,
            "dp": dp,
            "pp": pp,
            "tp": tp,
            "segment": 1 if files is None else files.number,
            "dropped_segments": 0 if files is None else files.dropped,
            "dropped_bytes": 0 if files is None else files.dropped_bytes,
            "run_unix_ns": self._zero,
            "unix_ns": mono + self._offset,
            "mono_ns": mono,
        }
        return _metadata(self._pid, SIDECAR, facts) + self._process_name()

    # ------------------------------------------------------------------ what goes wrong

    def _fail(self, error: OSError) -> None:
        """Record nothing any more, and say so."""
        self._off = True
        self._lines.clear()
        self._complain(error)
        if self._files is None:
            shield("an empty session", Faults(), self._discard)()
            return
        reason = error.strerror or str(error)
        self._files.stop(end_of(self._pid, self._messages, reason, time.time_ns()))
        self._files = None

    def _complain(self, error: OSError) -> None:
        try:
            place = self._directory()
        except OSError:
            place = None
        if place is None or _first_to_say(place):
            room = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            hint = "make room, or set PROFILEMATE_MAX_MB" if room else "set PROFILEMATE_DIR"
            say(
                f"the live session {place or ''} cannot be written: {error.strerror or error}. "
                f"vLLM goes on without; what was written so far is kept. Next time, {hint}"
            )

    def forked(self) -> None:
        """The parent keeps its file, its lock and what it has collected."""
        if self._files is not None:
            self._files.abandon()
        self._begin()


def _forked(sink: SidecarSink | None) -> None:
    if sink is not None:
        sink.forked()


def _flush_always(sink: weakref.ref[SidecarSink]) -> None:
    """Flush every so often, until the sink is closed or gone."""
    pause = threading.Event()
    while not pause.wait(FLUSH_S):
        here = sink()
        if here is None or here.closed:
            return
        here.flush()
        del here


def _metadata(pid: int, name: str, facts: Mapping[str, object]) -> str:
    event = {"ph": "M", "cat": "profilemate", "name": name, "pid": pid, "tid": 0, "args": facts}
    return json.dumps(event, separators=(",", ":")) + ",\n"


_complaint_locks: list[int] = []
"""Open folders of sessions; a locked one tells the run's other processes that it was said."""


def _first_to_say(session: Path) -> bool:
    """Whether no process of this session has complained yet."""
    try:
        place = os.open(session, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        # Works where nothing can be written. Kept until the process ends.
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(place)
        return False
    except OSError:
        pass
    _complaint_locks.append(place)
    return True


def open_sink(settings: Settings, env: Mapping[str, str]) -> tuple[Sink | None, str]:
    """The sidecar of this process. No file is opened before there is something to write."""
    if not (settings.live or settings.torch):
        return None, "no live session was asked for"
    if env.get(session_dir.RUN) == session_dir.NO_SESSION:
        return None, "no session directory can be written"
    sink = SidecarSink(
        lambda: session_dir.make(settings, env),
        scope="always" if settings.live else "window",
        interval=settings.interval,
        packed=settings.gzip,
        cap=settings.max_mb * _MB,
        renew=current.touch_session,
        zero=session_dir.began_ns(env),
        discard=partial(session_dir.discard, settings, env),
        begun=partial(finish.at_exit, settings, env) if settings.live else lambda: None,
    )
    return sink, ""
