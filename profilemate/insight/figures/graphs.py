"""Figures of CUDA graphs: what was captured, what was used of it, and what padding costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from profilemate.insight.figures.base import Figure, counted
from profilemate.insight.figures.steps import modes_of
from profilemate.insight.reading import Floats, NoData, floats, rows_of, total
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables.step_rows import on_graphs

CAPTURE_HOOKS = ("CUDAGraphWrapper.__call__", "CudaGraphManager.capture", "CUDAGraph.capture_begin")
"""Without one of them nobody saw captures."""


@dataclass(frozen=True, slots=True)
class Padded:
    """The steps on graphs whose tokens are known, by unpadded and padded size.

    Attributes:
        frame: Their rows of cuda_graph_padding.csv.
        steps: Unpadded tokens -> steps.
        tokens: Unpadded tokens of all.
        padded: Padded tokens of all.
        by_size: Padded tokens of a step -> padding tokens of all steps of that size.
    """

    frame: pd.DataFrame
    steps: dict[int, int]
    tokens: int
    padded: int
    by_size: dict[int, int]

    @property
    def padding(self) -> int:
        """Tokens that padding added."""
        return self.padded - self.tokens


def padded_steps(session: SavedSession) -> Padded:
    """Read cuda_graph_padding.csv.

    Raises:
        NoData: No step on a graph is in it, or not with its tokens.
    """
    columns = ("runtime_mode", "unpadded_tokens", "padded_tokens", "count")
    frame = rows_of(session, "cuda_graph_padding", columns)
    frame = frame[on_graphs(frame["runtime_mode"])]
    if frame.empty:
        raise NoData("no step ran on a CUDA graph")
    unpadded, padded = floats(frame["unpadded_tokens"]), floats(frame["padded_tokens"])
    known = ~np.isnan(unpadded) & ~np.isnan(padded)
    if not known.any():
        raise NoData("the recording does not say how many tokens its steps had before padding")
    number = floats(frame["count"])[known].astype(np.int64)
    before, after = unpadded[known].astype(np.int64), padded[known].astype(np.int64)
    steps: dict[int, int] = {}
    by_size: dict[int, int] = {}
    for size, ran, times in zip(before.tolist(), after.tolist(), number.tolist(), strict=True):
        steps[size] = steps.get(size, 0) + times
        by_size[ran] = by_size.get(ran, 0) + times * (ran - size)
    sums = int((before * number).sum()), int((after * number).sum())
    return Padded(frame[known], steps, *sums, by_size)


def captured_sizes(session: SavedSession) -> tuple[int, ...]:
    """Sizes that were captured in the recording, in order; none where it saw no capture."""
    frame = session.table("cuda_graph_captures")
    sizes = floats(frame["num_tokens"]) if "num_tokens" in frame else np.array([])
    return tuple(np.unique(sizes[~np.isnan(sizes)]).astype(np.int64).tolist())


def replays(session: SavedSession, *columns: str) -> tuple[pd.DataFrame, Floats]:
    """cuda_graph_replay_latency.csv, and each graph's share of the steps on graphs, 0 to 1.

    Raises:
        NoData: No graph was replayed, or the table lacks one of the columns.
    """
    frame = rows_of(session, "cuda_graph_replay_latency", ("steps", *columns))
    steps = np.nan_to_num(floats(frame["steps"]))
    if not steps.sum():
        raise NoData("no graph was replayed")
    return frame, steps / steps.sum()


def _padding(session: SavedSession) -> float:
    seen = padded_steps(session)
    if not seen.padded:
        raise NoData("the graphs ran no tokens")
    return 100 * seen.padding / seen.padded


def _padding_gpu(session: SavedSession) -> float:
    coverage = modes_of(session).frame
    wasted, ran = (total(coverage, c) for c in ("padding_gpu_ms", "gpu_graph_ms"))
    if wasted is None or not ran:
        raise NoData("the GPU time of the graphs is not known, or not what padding has of it")
    return 100 * wasted / ran


def _captured(session: SavedSession) -> float:
    captured = len(session.table("cuda_graph_captures"))
    return counted(captured, session, "worker", *CAPTURE_HOOKS)


def _unused(session: SavedSession) -> float:
    _captured(session)
    unused = total(modes_of(session).frame, "graphs_never_replayed")
    if unused is None:
        raise NoData("replays cannot be told by their descriptor")
    return unused


def _replayed(session: SavedSession) -> float:
    replayed = total(modes_of(session).frame, "graphs_replayed")
    if replayed is None:
        raise NoData("the session does not count the graphs that were replayed")
    return replayed


PADDING = Figure(
    "padding_pct",
    "padding",
    "%",
    "Padding tokens, of the padded tokens of the steps on graphs of which both are known.",
    _padding,
    "lower",
)
PADDING_TOKENS = Figure(
    "padding_tokens",
    "padding tokens",
    "",
    "Tokens that padding added to the steps on graphs.",
    lambda session: float(padded_steps(session).padding),
    "lower",
)
PADDED_TOKENS = Figure(
    "padded_tokens",
    "padded tokens",
    "",
    "Tokens of the steps on graphs after padding, where those before it are known.",
    lambda session: float(padded_steps(session).padded),
)
PADDING_GPU = Figure(
    "padding_gpu_pct",
    "GPU time of padding",
    "%",
    "GPU busy time of graph launches times their step's padding share, of that of all.",
    _padding_gpu,
    "lower",
)
CAPTURED = Figure(
    "graphs_captured", "graphs captured", "", "Graphs captured in the recording.", _captured
)
UNUSED = Figure(
    "graphs_unused",
    "graphs never replayed",
    "",
    "Graphs captured in the recording and not replayed in it.",
    _unused,
    "lower",
)
REPLAYED = Figure(
    "graphs_replayed", "graphs replayed", "", "Graphs replayed in the recording.", _replayed
)
HOTTEST = Figure(
    "hottest_graph_pct",
    "steps of the hottest graph",
    "%",
    "Steps of the graph that most steps ran on, of all steps on graphs.",
    lambda session: 100 * float(replays(session)[1].max()),
)

FIGURES = (PADDING, PADDING_TOKENS, PADDED_TOKENS, PADDING_GPU, CAPTURED, UNUSED, REPLAYED, HOTTEST)
