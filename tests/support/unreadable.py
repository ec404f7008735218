"""Recordings of which the reading is watched, or never ends; processes import it by its name."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profilemate.parse.ingest.read_one import Task
from profilemate.parse.readers.kineto import parts
from profilemate.parse.recording.contract import Recording
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.recording.worker_processes import Workers


@dataclass(frozen=True, slots=True)
class Killed(Task):
    """A recording so large that the kernel ends whoever reads it."""

    def open(self, progress: Progress = no_progress) -> Recording:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@dataclass(frozen=True, slots=True)
class Endless(Task):
    """A recording that takes for ever; says who reads it."""

    def open(self, progress: Progress = no_progress) -> Recording:
        self.path.with_suffix(f".{os.getpid()}.pid").touch()
        time.sleep(600)
        raise AssertionError


@dataclass(frozen=True, slots=True)
class InParts(Task):
    """A trace of which every few bytes are worth a process; says which ones are started."""

    def open(self, progress: Progress = no_progress) -> Recording:
        started, log = subprocess.Popen, self.path.with_suffix(".started")

        def logged(*arguments: Any, **options: Any) -> Any:
            with log.open("a") as file:
                file.write(f"{os.getpid()}\n")
            return started(*arguments, **options)

        parts.SMALLEST = parts.SMALLEST_COMPILED = 1 << 12
        subprocess.Popen = logged  # type: ignore[assignment, misc]
        return Task.open(self, progress)


def pids(folder: Path) -> list[int]:
    return [int(path.suffixes[-2][1:]) for path in folder.glob("*.pid")]


@dataclass(frozen=True, slots=True)
class Nested(Task):
    """A recording that takes a process of its own for ever."""

    def open(self, progress: Progress = no_progress) -> Recording:
        with Workers("nested", [Endless(self.path)], 1) as workers:
            workers.results()
        raise AssertionError


@dataclass(frozen=True, slots=True)
class KilledLater(Killed):
    """The same as `Killed`, once an endless one is being read."""

    def open(self, progress: Progress = no_progress) -> Recording:
        while not pids(self.path.parent):
            time.sleep(0.05)
        return Killed.open(self, progress)
