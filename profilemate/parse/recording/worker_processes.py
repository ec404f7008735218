"""Processes that do pieces of work side by side, and what share of the machine each of them has.

Whoever starts processes hands down the share of each: a process never asks how many cores there
are if somebody has told it how many are its own. What comes back are columns: their bytes travel
beside the pickle, not in it. The processes are our own, not those of a pool, because Ctrl-C and an
error must end all of them at once, and one that the kernel kills for its memory must be told from
one that failed. They do not import the program that asked, as `multiprocessing` would: anybody's
script may read with several jobs.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from profilemate.errors import ProfilemateError, ToolError
from profilemate.parse.recording.progress import Progress, no_progress

_MEMORY = 600 << 20  # bytes that a process may need
_TELL_S = 0.1  # seconds between two words on the progress
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from profilemate.parse.recording.worker_processes import serve; serve(int(sys.argv[2]))"
)
_PARTS = 1000  # of a piece of work, for the progress
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of sys/prctl.h


@dataclass(frozen=True, slots=True)
class Share:
    """What a process may use of the machine it runs on.

    Attributes:
        cores: Cores that it and all processes it starts may keep busy.
        memory: Bytes that they may use.
    """

    cores: int
    memory: int

    @classmethod
    def whole(cls) -> Share:
        """What there is for this process, by its affinity and the rules of a container."""
        try:
            cores = len(os.sched_getaffinity(0))
        except AttributeError:  # other systems
            cores = os.cpu_count() or 1
        return cls(cores, _free_memory())

    def divided(self, count: int) -> Share:
        """What each of so many processes has of it: a core at least."""
        return Share(max(1, self.cores // count), self.memory // count)

    @property
    def processes(self) -> int:
        """How many processes fit into it, itself included."""
        return max(1, min(self.cores, self.memory // _MEMORY))


def _free_memory() -> int:
    """Bytes of memory that are free here, also by the rules of a container."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    limit, used = (_lines(group / f"memory.{name}") for name in ("max", "current"))
    if limit and used and limit[0].isdigit():
        free = min(free, max(0, int(limit[0]) - int(used[0])))
    return free


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Work(Protocol[T_co]):
    """A piece of work: it can be pickled, and so can what comes of it."""

    @property
    def path(self) -> Path:
        """The file it is about, for errors."""

    def run(self, progress: Progress, /) -> T_co:
        """Do it.

        Raises:
            ProfilemateError: It cannot be done.
        """


class WorkerEndedError(ToolError):
    """A process ended before it was done."""


# ------------------------------------------------------------------ in the other process


def serve(descriptor: int) -> None:
    """Do what is asked for until nothing more is. Runs in a process of its own."""
    _end_with_parent()
    pipe = Connection(descriptor)
    try:
        while (work := pipe.recv()) is not None:
            send(pipe, _outcome(work, pipe))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass  # whoever asked is gone, or Ctrl-C ends all of us


def _end_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends, however it does.

    With another kernel it ends when it has nobody to tell what came of its work.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)


def _outcome(work: Work[Any], pipe: Connection) -> Any:
    last = time.monotonic()

    def progress(what: str, done: int, total: int | None) -> None:
        nonlocal last
        if total and time.monotonic() - last > _TELL_S:
            last = time.monotonic()
            pipe.send(done / total)

    try:
        return work.run(progress)
    except ProfilemateError as e:
        return e


def send(pipe: Connection, value: object) -> None:
    """Send an object, the bytes of its arrays beside it."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    pipe.send([len(head), *(len(one) for one in raw)])
    pipe.send_bytes(head)
    for one in raw:
        if one.nbytes:
            pipe.send_bytes(one)


def receive(pipe: Connection, sizes: Sequence[int]) -> Any:
    """Receive what `send` sent, after the sizes."""
    parts = [bytearray(size) for size in sizes]
    for part in parts:
        if part:
            pipe.recv_bytes_into(part)
    return pickle.loads(parts[0], buffers=parts[1:])


# ------------------------------------------------------------------ here


class Workers(Generic[T]):
    """Processes that work from `with` on, and what each of them is at; leaving it ends them."""

    def __init__(
        self, what: str, tasks: Sequence[Work[T]], count: int, progress: Progress = no_progress
    ) -> None:
        """Prepare.

        Args:
            what: What is done, for the progress.
            tasks: All pieces of work.
            count: How many processes there are to be.
            progress: Told how much of all of them is done.
        """
        self._what, self._tasks, self._count, self._progress = what, tasks, count, progress
        self._waiting = deque(range(len(tasks)))
        self._at: dict[Connection, int] = {}
        self._processes: dict[Connection, subprocess.Popen[bytes]] = {}
        self._done: dict[int, T] = {}
        self._parts: dict[int, float] = {}

    def __enter__(self) -> Workers[T]:
        self._tell()
        try:
            for _ in range(min(self._count, len(self._tasks))):
                self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def results(self) -> list[T]:
        """What came of all pieces of work, in their order; waits for it.

        Raises:
            ProfilemateError: One cannot be done; the others are given up.
            WorkerEndedError: A process was killed or failed.
        """
        while len(self._done) < len(self._tasks):
            for pipe in wait(list(self._at)):
                assert isinstance(pipe, Connection)
                self._hear(pipe)
        return [self._done[number] for number in range(len(self._tasks))]

    def _start(self) -> None:
        ours, theirs = Pipe()
        with theirs:
            descriptor = theirs.fileno()
            arguments = ["-c", _START, json.dumps(sys.path), str(descriptor)]
            process = subprocess.Popen([sys.executable, *arguments], pass_fds=[descriptor])
        self._processes[ours] = process
        self._next(ours)

    def _next(self, pipe: Connection) -> None:
        self._at.pop(pipe, None)
        try:
            if not self._waiting:
                pipe.send(None)
                return
            number = self._waiting.popleft()
            self._at[pipe] = number
            pipe.send(self._tasks[number])
        except OSError as e:
            raise self._ended(pipe) from e

    def _hear(self, pipe: Connection) -> None:
        number = self._at[pipe]
        try:
            said = pipe.recv()
            if isinstance(said, float):
                # What a reader tells goes up to its end more than once: never back.
                self._parts[number] = max(self._parts.get(number, 0.0), min(said, 1.0))
            else:
                outcome = receive(pipe, said)
                if isinstance(outcome, ProfilemateError):
                    raise outcome
                self._done[number], self._parts[number] = outcome, 1.0
                self._next(pipe)
        except (EOFError, OSError) as e:
            raise self._ended(pipe) from e
        self._tell()

    def _tell(self) -> None:
        done = int(_PARTS * sum(self._parts.values()))
        self._progress(self._what, done, _PARTS * len(self._tasks))

    def _ended(self, pipe: Connection) -> WorkerEndedError:
        code = self._processes[pipe].wait()
        killed = code == -signal.SIGKILL
        return WorkerEndedError(
            "The process that read a recording ended before it was done",
            path=self._tasks[self._at[pipe]].path if pipe in self._at else None,
            why="It was killed, most likely because memory ran out."
            if killed
            else f"Its exit code is {code}; what it said is above.",
            hint="Read one at a time: --jobs 1",
        )

    def _end(self) -> None:
        for process in self._processes.values():
            if len(self._done) < len(self._tasks):
                process.terminate()
        for pipe, process in self._processes.items():
            pipe.close()
            process.wait()
