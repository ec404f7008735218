"""Which model steps count, and which ran on a graph: the same in tables and in what reads them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.tables.base import Bools
from profilemate.schema.modes import GRAPH_MODES


def real_steps(dummy: Bools, tokens: Ints | npt.NDArray[np.float64]) -> Bools:
    """Steps in which the model ran for requests: no dummy ones and none without tokens.

    Args:
        dummy: Whether each step is a dummy one; False where nobody says.
        tokens: Its unpadded tokens, NaN or -1 where they are not known: such a step counts.
    """
    real: Bools = ~dummy & (tokens != 0)
    return real


def on_graphs(mode: pd.Series) -> Bools:
    """Steps that ran on a CUDA graph; those whose mode is not known did not."""
    return mode.isin(GRAPH_MODES).to_numpy(dtype=bool)
