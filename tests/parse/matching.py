"""GPU records to launches, without a recording around them."""

from __future__ import annotations

from collections.abc import Sequence

from profilemate.parse.activity import Columns
from profilemate.parse.attribution import Matched, match
from profilemate.parse.collected import folded


def matched(launches: Columns, starts: Columns, gpu: Columns, names: Sequence[str]) -> Matched:
    """`match`, of columns with the number of the recording."""
    columns = {"launches": launches, "starts": starts, "gpu": gpu}
    return match(columns | folded(gpu, names))
