"""Many recordings at a time: a process for each, as many as there are cores and memory for.

The work of a file is `reading.read_task`, the same that is done here when there is but one. What
comes back are columns: their bytes travel beside the pickle, not in it. The processes are our own,
not those of a pool, because Ctrl-C and an error must end all of them at once, and one that the
kernel kills for its memory must be told from one that failed. They do not import the program that
asked, as `multiprocessing` would: anybody's script may read with several jobs.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from profilemate.errors import ProfilemateError, ToolError
from profilemate.parse.ingest.dask_cluster import read_on
from profilemate.parse.ingest.read_one import Read, Task, read_recording, read_task
from profilemate.parse.readers import find_reader
from profilemate.parse.recording.progress import Progress, no_progress

_WORTH = 32 << 20  # bytes: less than that is read sooner than a process starts
_MEMORY = 600 << 20  # bytes that a process may need
_TELL_S = 0.1  # seconds between two words on the progress
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from profilemate.parse.ingest.worker_processes import serve; serve(int(sys.argv[2]))"
)
_PARTS = 1000  # of a recording, for the progress


def read_all(
    tasks: Sequence[Task],
    progress: Progress = no_progress,
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
) -> list[Read]:
    """Read recordings, in their order.

    Args:
        tasks: What to read.
        progress: Told how much of all of them is done.
        jobs: Processes that read at a time; None for as many as there are cores and memory for,
            where the recordings are large enough to be worth it.
        scheduler: Address of a Dask scheduler whose workers are to read instead.

    Raises:
        ProfilemateError: One cannot be read; of several, one of them.
    """
    if scheduler is not None:
        return read_on(scheduler, tasks, progress)
    for task in tasks if len(tasks) > 1 else ():
        find_reader(task.path)  # a wrong path is said at once
    count = min(len(tasks), fitting(tasks) if jobs is None else max(1, jobs))
    if count > 1:
        return _Workers(tasks, count, progress).read()
    opened = [task.open(progress) for task in tasks]
    return [
        read_recording(one, progress, records=task.records, budget=task.budget)
        for one, task in zip(opened, tasks, strict=True)
    ]


def fitting(tasks: Sequence[Task]) -> int:
    """How many processes are worth it: by the size of the recordings, the cores and the memory."""
    if sum(_size(task.path) for task in tasks) < _WORTH:
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), _memory() // _MEMORY))


def _size(path: Path) -> int:
    try:
        inside = path.iterdir() if path.is_dir() else [path]
        return sum(one.stat().st_size for one in inside)
    except OSError:
        return 0  # whoever opens it says why


def _memory() -> int:
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


# ------------------------------------------------------------------ in the other process


def serve(descriptor: int) -> None:
    """Read what is asked for until nothing more is. Runs in a process of its own."""
    pipe = Connection(descriptor)
    try:
        while (task := pipe.recv()) is not None:
            send(pipe, _outcome(task, pipe))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass  # whoever asked is gone, or Ctrl-C ends all of us


def _outcome(task: Task, pipe: Connection) -> Read | ProfilemateError:
    told = time.monotonic()

    def progress(what: str, done: int, total: int | None) -> None:
        nonlocal told
        if total and time.monotonic() - told > _TELL_S:
            told = time.monotonic()
            pipe.send(done / total)

    try:
        return read_task(task, progress)
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


class _Workers:
    """Processes that read, and what each of them is at."""

    def __init__(self, tasks: Sequence[Task], count: int, progress: Progress) -> None:
        self._tasks, self._count, self._progress = tasks, count, progress
        self._waiting = deque(range(len(tasks)))
        self._at: dict[Connection, int] = {}
        self._processes: dict[Connection, subprocess.Popen[bytes]] = {}
        self._done: dict[int, Read] = {}
        self._parts: dict[int, float] = {}

    def read(self) -> list[Read]:
        """Have everything read.

        Raises:
            ProfilemateError: One recording cannot be read; the others are given up.
        """
        self._tell()
        try:
            for _ in range(self._count):
                self._start()
            while len(self._done) < len(self._tasks):
                for pipe in wait(list(self._at)):
                    assert isinstance(pipe, Connection)
                    self._hear(pipe)
        finally:
            self._end()
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
            raise self._died(pipe) from e

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
            raise self._died(pipe) from e
        self._tell()

    def _tell(self) -> None:
        done = int(_PARTS * sum(self._parts.values()))
        self._progress(f"reading {len(self._tasks)} recordings", done, _PARTS * len(self._tasks))

    def _died(self, pipe: Connection) -> ToolError:
        code = self._processes[pipe].wait()
        killed = code == -signal.SIGKILL
        return ToolError(
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
