"""GPU records to launches, without a recording around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from profilemate.parse.columns.arrays import Columns
from profilemate.parse.gpu.collected import folded
from profilemate.parse.gpu.launches import match
from profilemate.parse.gpu.work import GpuWork
from profilemate.parse.trace.activity import GPU, LAUNCHES, typed_frame


class MatchedFrames(NamedTuple):
    """What a trace keeps of what `match` finds."""

    launches: pd.DataFrame
    work: GpuWork
    gpu: pd.DataFrame


def matched(
    launches: Columns, starts: Columns, gpu: Columns, names: Sequence[str]
) -> MatchedFrames:
    """`match`, of columns with the number of the recording."""
    columns = {"launches": launches, "starts": starts, "gpu": gpu}
    found = match(columns | folded(gpu, names))
    return MatchedFrames(
        typed_frame(LAUNCHES, found.launches), found.work, typed_frame(GPU, found.gpu)
    )
