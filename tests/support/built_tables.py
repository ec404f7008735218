"""Every table of a trace."""

from __future__ import annotations

import pandas as pd

from profilemate.parse.session.tables_on_demand import Built
from profilemate.parse.trace.trace import Trace


def build_tables(trace: Trace, *, run: Trace | None = None) -> dict[str, pd.DataFrame]:
    """Tables by name, of the trace of one rank; `run` is that of the whole run, if that is more."""
    return Built(trace, run=run).frames()
