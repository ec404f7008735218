"""GPU records to launches, without a recording around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from profilemate.parse.activity import ActivitySink, Columns
from profilemate.parse.attribution import Matched, match
from profilemate.parse.collected import Collected
from profilemate.parse.trace import SourceInfo

KINDS = ("launches", "starts", "gpu", "work", "overlaps")


class Given:
    """A recording that gives columns to the sink, in batches of some size."""

    def __init__(self, columns: Mapping[str, Columns], names: Sequence[str]) -> None:
        self._columns, self._names = columns, names
        self.info = SourceInfo(None, "given", 0)  # type: ignore[arg-type]

    def activity(self, sink: ActivitySink) -> None:
        sink.names(dict(enumerate(self._names)))
        sink.launches(self._columns["launches"])
        sink.starts(self._columns["starts"])
        sink.gpu(self._columns["gpu"])


def matched(launches: Columns, starts: Columns, gpu: Columns, names: Sequence[str]) -> Matched:
    """`match`, of columns with the number of the recording."""
    collected = Collected()
    given = {"launches": launches, "starts": starts, "gpu": gpu}
    for number in range(2):
        mine = {
            kind: {name: values[columns["recording"] == number] for name, values in columns.items()}
            for kind, columns in given.items()
        }
        collected.read(number, Given(mine, names))  # type: ignore[arg-type]
    columns = {kind: collected.columns(kind) for kind in KINDS}
    order = np.argsort(gpu["recording"], kind="stable")
    columns["gpu"] = {name: values[np.argsort(order)] for name, values in columns["gpu"].items()}
    return match(columns)
