"""What a reader is, and what it is given to work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from profilemate.parse.recording.contract import Recording
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.recording.worker_processes import Share


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """What the caller has to say about how a recording is opened.

    Attributes:
        cache_dir: Where exports of reports are kept; None for `default_cache_dir()` of `nsys_rep`.
        nsys: The `nsys` program to export with; None to look for one.
        progress: Told about work that takes its time.
        streamed: Hold no more of a recording at a time than a block of it, even if that is slower.
        share: What this process and those that it starts may use of the machine; None for all.
    """

    cache_dir: Path | None = None
    nsys: Path | None = None
    progress: Progress = no_progress
    streamed: bool = False
    share: Share | None = None


class Reader(Protocol):
    """One format. A new one is one file with one of these, and one row in `READERS`."""

    @property
    def name(self) -> str:
        """What a file of the format is called in a sentence, for instance `nsys report`."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """How such files are usually named. Words errors; decides nothing."""

    def sniff(self, path: Path) -> bool:
        """Whether the content of an existing, readable file or directory is of this format.

        Raises:
            OSError: It cannot be read.
        """

    def open(self, path: Path, options: OpenOptions) -> Recording:
        """Open a recording that `sniff` wanted.

        Raises:
            InputError: The recording cannot be read after all.
            ToolError: A program or package that is needed is missing, too old or failed.
        """
