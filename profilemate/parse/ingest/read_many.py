"""Many recordings at a time: a process for each, as many as there are cores and memory for.

The work of a file is `Task.run`, the same that is done here if there is but one, and on a cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from profilemate.parse.ingest.dask_cluster import read_on
from profilemate.parse.ingest.read_one import Read, Task, read_recording
from profilemate.parse.readers import find_reader
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.recording.worker_processes import Share, Workers

_WORTH = 32 << 20  # bytes: less than that is read sooner than a process starts


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
    machine = Share.whole()
    count = min(len(tasks), fitting(tasks, machine) if jobs is None else max(1, jobs))
    tasks = [replace(task, share=machine.divided(count)) for task in tasks]
    if count > 1:
        with Workers(f"reading {len(tasks)} recordings", tasks, count, progress) as workers:
            return workers.results()
    opened = [task.open(progress) for task in tasks]
    return [
        read_recording(one, progress, records=task.records, budget=task.budget)
        for one, task in zip(opened, tasks, strict=True)
    ]


def fitting(tasks: Sequence[Task], machine: Share) -> int:
    """How many processes are worth it: by the size of the recordings, the cores and the memory."""
    return 1 if sum(_size(task.path) for task in tasks) < _WORTH else machine.processes


def _size(path: Path) -> int:
    try:
        inside = path.iterdir() if path.is_dir() else [path]
        return sum(one.stat().st_size for one in inside)
    except OSError:
        return 0  # whoever opens it says why
