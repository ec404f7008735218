"""Recordings that nobody comes to the end of. Processes that read them import this by its name."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from profilemate.parse.ingest.read_one import Task
from profilemate.parse.recording.contract import Recording
from profilemate.parse.recording.progress import Progress, no_progress


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
