"""The tables of a trace, one at a time: all of them together take more memory than the trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from profilemate.parse.columns.allocator import give_back
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.tables import TABLES
from profilemate.parse.tables.custom import custom_tables
from profilemate.parse.trace.kv_log import together
from profilemate.parse.trace.trace import Trace

Note = Callable[[str, pd.DataFrame], None]


class Built(Mapping[str, Iterator[pd.DataFrame]]):
    """Every table of a trace by name, in parts, built when they are asked for and not kept.

    Args:
        trace: The trace of one rank.
        progress: Told how many tables there are yet to build.
        run: The trace of the whole run, where that is more.
        further: This is not the lead rank: tables that are of the whole run are left out.
        note: Given each part of a table that is built.
    """

    def __init__(
        self,
        trace: Trace,
        progress: Progress = no_progress,
        *,
        run: Trace | None = None,
        further: bool = False,
        note: Note | None = None,
    ) -> None:
        self._trace, self._run = trace, trace if run is None else run
        self._progress, self._note = progress, note
        every = TABLES | custom_tables(trace)
        self._tables = {n: t for n, t in every.items() if not (further and t.of_run)}
        self._places = {name: place for place, name in enumerate(self._tables)}

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def __getitem__(self, name: str) -> Iterator[pd.DataFrame]:
        table = self._tables[name]
        self._progress("building tables", self._places[name], len(self))
        for frame in table.parts(self._run if table.of_run else self._trace):
            if self._note is not None:
                self._note(name, frame)
            yield frame
        give_back()

    def frames(self) -> dict[str, pd.DataFrame]:
        """All tables, each as one frame."""
        return {name: together([*parts]) for name, parts in self.items()}
