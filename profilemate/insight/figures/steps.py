"""Figures of model steps: how many ran, on graphs or eagerly, with how many tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.insight.figures.base import Figure, ranked
from profilemate.insight.reading import Bools, Floats, NoData, floats, rows_of, texts, total, truths
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables.step_rows import on_graphs, real_steps
from profilemate.schema.modes import EAGER


@dataclass(frozen=True, slots=True)
class Modes:
    """cuda_graph_coverage.csv: a row for each mode.

    Attributes:
        frame: The table.
        mode: The mode of each row, empty where it is not known.
        steps: Steps that count, by row.
        known: Rows of a mode that is known.
        on_graph: Rows of a mode that is a graph.
    """

    frame: pd.DataFrame
    mode: npt.NDArray[np.object_]
    steps: Floats
    known: Bools
    on_graph: Bools

    def sum(self, column: str, rows: Bools) -> float:
        """The sum of a column over some rows that have steps, or over these rows if none has.

        Raises:
            NoData: One of them does not say it: what the others say is only a part.
        """
        rows = rows & (self.steps > 0) if (rows & (self.steps > 0)).any() else rows
        values = floats(self.frame[column])[rows] if column in self.frame else np.array([])
        if np.isnan(values).any() or not len(values):
            raise NoData(f"the recording does not say the {column} of its steps")
        return float(values.sum())

    def count(self, rows: Bools) -> int:
        """Steps in some rows."""
        return int(np.nansum(self.steps[rows]))


def modes_of(session: SavedSession) -> Modes:
    """Read cuda_graph_coverage.csv.

    Raises:
        NoData: It has no rows.
    """
    frame = rows_of(session, "cuda_graph_coverage", ("runtime_mode", "steps"))
    mode = texts(frame["runtime_mode"])
    known, on_graph = mode != "", on_graphs(frame["runtime_mode"])
    return Modes(frame, mode, floats(frame["steps"]), known, on_graph)


COUNTING = ("dummy", "unpadded_tokens")
"""Columns of cuda_graph_steps.csv that say whether a step counts."""


def step_rows(session: SavedSession, *columns: str) -> pd.DataFrame:
    """cuda_graph_steps.csv with its columns of a step that counts, and these.

    Raises:
        NoData: It has no rows.
    """
    return rows_of(session, "cuda_graph_steps", (*COUNTING, *columns))


def counting(frame: pd.DataFrame) -> Bools:
    """Rows of cuda_graph_steps.csv that count: no dummy steps, and none without tokens."""
    dummy, tokens = (frame[name] for name in COUNTING)
    return real_steps(truths(dummy), floats(tokens))


@dataclass(frozen=True, slots=True)
class DecodeSteps:
    """cuda_graph_steps.csv, and its rows that count and whose mode is known.

    Attributes:
        frame: The table.
        known: Those rows.
        decode: Of these, the ones with decode tokens and no prefill tokens.
        eager: Of the latter, those that ran without a graph.
    """

    frame: pd.DataFrame
    known: Bools
    decode: Bools
    eager: Bools


def decode_steps(session: SavedSession) -> DecodeSteps:
    """The decode steps of a session.

    Raises:
        NoData: It has none, or none that are told from prefill.
    """
    frame = step_rows(session, "runtime_mode", "prefill_tokens", "decode_tokens")
    mode = texts(frame["runtime_mode"])
    known = counting(frame) & (mode != "")
    prefill, decode = floats(frame["prefill_tokens"]), floats(frame["decode_tokens"])
    if np.isnan(prefill[known]).all():
        raise NoData("the recording does not tell decode steps from prefill")
    rows = known & (prefill == 0) & (decode > 0)
    return DecodeSteps(frame, known, rows, rows & (mode == EAGER))


def _steps(session: SavedSession) -> float:
    return float(np.nansum(modes_of(session).steps))


def _empty(session: SavedSession) -> float:
    empty = total(modes_of(session).frame, "empty_steps")
    if empty is None:
        raise NoData("the session does not count steps without tokens")
    return empty


def _tokens(session: SavedSession) -> float:
    modes = modes_of(session)
    return modes.sum("unpadded_tokens", modes.steps >= 0)


def _throughput(session: SavedSession) -> float:
    frame = step_rows(session, "timestamp_sec", "host_ms")
    frame = frame[counting(frame)]
    tokens = floats(frame["unpadded_tokens"])
    if np.isnan(tokens).any() or not len(tokens):
        raise NoData(f"{int(np.isnan(tokens).sum()):,} of {len(tokens):,} steps say no tokens")
    at, host = floats(frame["timestamp_sec"]), floats(frame["host_ms"])
    ends = (at + host / 1e3)[~np.isnan(at + host)]
    seconds = float(ends.max() - np.nanmin(at)) if len(ends) else 0.0
    if seconds <= 0:
        raise NoData("no step says when it ended")
    return float(tokens.sum()) / seconds


def _step_host(session: SavedSession) -> float:
    frame = step_rows(session, "host_ms")
    host = floats(frame["host_ms"])[counting(frame)]
    median = ranked(host[~np.isnan(host)], 50)
    if median is None:
        raise NoData("no step says how long it took the host")
    return median


def _on_graphs(session: SavedSession) -> float:
    modes = modes_of(session)
    known = modes.count(modes.known)
    if not known:
        raise NoData("no step says whether it ran on a graph")
    return 100 * modes.count(modes.on_graph) / known


def _tokens_on_graphs(session: SavedSession) -> float:
    modes = modes_of(session)
    tokens = modes.sum("unpadded_tokens", modes.known)
    if not tokens:
        raise NoData("no step of a known mode had tokens")
    any_graph = modes.count(modes.on_graph) > 0
    return 100 * modes.sum("unpadded_tokens", modes.on_graph) / tokens if any_graph else 0.0


def _gpu_on_graphs(session: SavedSession) -> float:
    modes, said = modes_of(session), session.metadata.coverage
    if total(modes.frame, "gpu_ms") is None and total(modes.frame, "gpu_graph_share") is None:
        raise NoData("no step has GPU time")
    if said.get("launches") and said.get("launches_with_gpu_records") == 0:
        raise NoData("no graph launch has GPU records")
    return 100 * modes.sum("gpu_graph_share", modes.on_graph)


def _eager_decode(session: SavedSession) -> float:
    found = decode_steps(session)
    if not found.decode.any():
        raise NoData("there was no decode step")
    return 100 * float(found.eager.sum() / found.decode.sum())


STEPS = Figure(
    "steps",
    "steps",
    "",
    "Model steps that ran for requests: no dummy ones, and none without tokens.",
    _steps,
)
EMPTY_STEPS = Figure(
    "empty_steps",
    "steps without tokens",
    "",
    "Further model steps without any token, in which no model runs; dummy ones are not counted.",
    _empty,
)
TOKENS = Figure("tokens", "tokens run", "", "Unpadded tokens of all steps.", _tokens)
TOKENS_PER_SEC = Figure(
    "tokens_per_sec",
    "tokens run a second",
    "/s",
    "Unpadded tokens of all steps, over the time from the first's begin to the last's end.",
    _throughput,
    "higher",
)
STEP_HOST_P50 = Figure(
    "step_host_p50",
    "step on the host, median",
    "ms",
    "Median host duration of all steps.",
    _step_host,
    "lower",
)
GRAPH_STEPS = Figure(
    "graph_steps_pct",
    "steps on graphs",
    "%",
    "Steps on FULL or PIECEWISE graphs, of all steps whose mode is known.",
    _on_graphs,
    "higher",
)
GRAPH_TOKENS = Figure(
    "graph_tokens_pct",
    "tokens on graphs",
    "%",
    "Unpadded tokens of the steps on graphs, of those of all steps whose mode is known.",
    _tokens_on_graphs,
    "higher",
)
GRAPH_GPU = Figure(
    "graph_gpu_pct",
    "GPU time on graphs",
    "%",
    "GPU busy time of the graph launches of steps, of the time in which the GPUs ran anything.",
    _gpu_on_graphs,
    "higher",
)
EAGER_DECODE = Figure(
    "eager_decode_pct",
    "decode steps run eagerly",
    "%",
    "Steps without a graph, of the steps with decode tokens and no prefill tokens whose mode is "
    "known.",
    _eager_decode,
    "lower",
)

FIGURES = (
    STEP_HOST_P50,
    TOKENS_PER_SEC,
    GRAPH_STEPS,
    GRAPH_TOKENS,
    GRAPH_GPU,
    EAGER_DECODE,
    STEPS,
    EMPTY_STEPS,
    TOKENS,
)
