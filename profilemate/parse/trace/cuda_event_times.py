"""GPU time of steps by CUDA events: what there is of it where no recorder saw the GPU."""

from __future__ import annotations

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.trace.trace import Trace


def timed(trace: Trace, pid: pd.Series, step: pd.Series) -> Ints:
    """Nanoseconds between the events of each step, by process and step number; -1 if unknown.

    Where GPU records were found they are the better answer, and this gives none.
    """
    measured = trace.frames["step.gpu"].dropna(subset=["step", "gpu"])
    none = np.full(len(pid), -1, dtype=np.int64)
    if measured.empty or (trace.launches["records"] > 0).any():
        return none
    known = measured.drop_duplicates(["pid", "step"]).set_index(["pid", "step"])["gpu"]
    wanted = pd.MultiIndex.from_arrays(
        [pid.astype("int64"), step.fillna(-1).astype("int64")], names=["pid", "step"]
    )
    known.index = pd.MultiIndex.from_arrays(
        [known.index.get_level_values(n).astype("int64") for n in (0, 1)], names=["pid", "step"]
    )
    return known.reindex(wanted).fillna(-1).to_numpy(dtype=np.int64)
