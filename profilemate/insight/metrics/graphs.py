"""Metrics of model steps and CUDA graphs."""

from __future__ import annotations

from typing import Any

from profilemate.insight.figures import graphs
from profilemate.insight.metrics.family import Collector, Kind, Spec, number, text
from profilemate.parse.session.saved import GRAPH_COLUMNS, SavedSession
from profilemate.schema.modes import on_graph

UNKNOWN = "unknown"
"""Runtime mode of steps of which nobody says it; `NONE` is an eager step."""

REPLAYS = Spec("profilemate_cuda_graph_replays", "counter", "Model steps that ran on this graph.")
LAUNCHES = Spec(
    "profilemate_cuda_graph_replay_launches",
    "counter",
    "Launches of this graph's pieces in the model steps that ran on it.",
)
GRAPH_SHARE = Spec(
    "profilemate_cuda_graph_gpu_time_ratio",
    "gauge",
    "GPU busy time of this graph, of the time in which the GPUs ran anything at all.",
)
MEASURES = {
    "launch": Spec(
        "profilemate_cuda_graph_replay_launch_seconds",
        "summary",
        "Time in the launch calls of a model step on the host.",
    ),
    "delay": Spec(
        "profilemate_cuda_graph_replay_delay_seconds",
        "summary",
        "From the begin of a step's first launch call to the begin of its first GPU record.",
    ),
    "gpu_span": Spec(
        "profilemate_cuda_graph_replay_gpu_span_seconds",
        "summary",
        "Replay latency: from the begin of a step's first GPU record to the end of its last.",
    ),
    "gpu_busy": Spec(
        "profilemate_cuda_graph_replay_gpu_busy_seconds",
        "summary",
        "Time in which any GPU record of a step's graph launches ran.",
    ),
    "gpu_idle": Spec(
        "profilemate_cuda_graph_replay_gpu_idle_seconds",
        "summary",
        "GPU span less GPU busy of a step's graph launches.",
    ),
}
QUANTILES = {"0.5": "p50", "0.9": "p90", "0.99": "p99", "1": "max"}


def _row(column: str, name: str, kind: Kind, doc: str) -> tuple[str, Spec]:
    return column, Spec(f"profilemate_{name}", kind, doc)


# Counted even where no step ran in the mode.
ALWAYS = (
    _row("steps", "steps", "counter", "Model steps with tokens, without dummy ones."),
    _row("step_share", "step_ratio", "gauge", "Share of the steps of all modes."),
    _row(
        "empty_steps",
        "empty_steps",
        "counter",
        "Model steps without any token, in which no model runs.",
    ),
)
OF_STEPS = (
    _row("unpadded_tokens", "step_tokens", "counter", "Tokens that the steps had to run."),
    _row("token_share", "token_ratio", "gauge", "Share of the tokens of all steps."),
    _row("padded_tokens", "padded_step_tokens", "counter", "Tokens of the steps after padding."),
    _row("padding_tokens", "padding_tokens", "counter", "Tokens wasted on padding."),
    _row("padding_share", "padding_ratio", "gauge", "Padding tokens, of the padded tokens."),
    _row("host_ms", "step_host_seconds", "counter", "Host duration of the steps."),
    _row("host_share", "host_time_ratio", "gauge", "Share of the host duration of all steps."),
    _row("launches", "step_graph_launches", "counter", "CUDA graph launches seen in the steps."),
    _row(
        "gpu_ms",
        "step_gpu_busy_seconds",
        "counter",
        "GPU busy time of all that calls in the steps started, on graphs or eagerly.",
    ),
    _row(
        "gpu_share",
        "gpu_time_ratio",
        "gauge",
        "Share of the GPUs' busy time that calls in the steps started, on graphs or eagerly.",
    ),
    _row(
        "gpu_graph_ms",
        "step_graph_gpu_busy_seconds",
        "counter",
        "GPU busy time of the steps' graph launches.",
    ),
    _row(
        "gpu_graph_share",
        "graph_gpu_time_ratio",
        "gauge",
        "Share of the GPUs' busy time that the steps' graph launches make up.",
    ),
    _row(
        "padding_gpu_ms",
        "padding_gpu_seconds",
        "counter",
        "GPU busy time of the graph launches times the padding ratio of their step.",
    ),
)
CAPTURED = (
    _row("graphs_captured", "cuda_graphs_captured", "gauge", "Graphs captured and kept."),
    _row(
        "graphs_never_replayed",
        "cuda_graphs_never_replayed",
        "gauge",
        "Graphs captured and not replayed in the recording.",
    ),
    _row(
        "never_replayed_capture_ms",
        "cuda_graphs_never_replayed_capture_seconds",
        "gauge",
        "Time that capturing graphs took that were not replayed, on the host.",
    ),
)
REPLAYED = _row(
    "graphs_replayed", "cuda_graphs_replayed", "gauge", "Graphs replayed in the recording."
)
SPECS = (
    *(spec for _, spec in (*ALWAYS, *OF_STEPS, *CAPTURED, REPLAYED)),
    *(REPLAYS, LAUNCHES, GRAPH_SHARE),
    *MEASURES.values(),
)


def collect(found: Collector, session: SavedSession) -> None:
    """Add the metrics of one rank's steps and graphs."""
    _modes(found, session)
    for row in session.table("cuda_graph_replay_latency").to_dict("records"):
        labels = {name: text(row[name]) for name in GRAPH_COLUMNS}
        labels["runtime_mode"] = labels["runtime_mode"] or UNKNOWN
        found.add(REPLAYS, row["steps"], labels)
        found.add(LAUNCHES, row["launches"], labels)
        found.add(GRAPH_SHARE, row["gpu_time_share"], labels)
        for measure, spec in MEASURES.items():
            quantiles = {q: _seconds(row[f"{measure}_{name}_ms"]) for q, name in QUANTILES.items()}
            # Of how many steps the launch calls were seen is in no table.
            count = None if measure == "launch" else number(row["gpu_steps"])
            total = _seconds(row[f"{measure}_total_ms"])
            found.summary(spec, quantiles, count, total, labels)


def _modes(found: Collector, session: SavedSession) -> None:
    rows = session.table("cuda_graph_coverage").to_dict("records")
    captures = graphs.CAPTURED.value(session).value is not None
    all_known = all(text(row["runtime_mode"]) for row in rows)
    for row in rows:
        mode = text(row["runtime_mode"]) or UNKNOWN
        # Where some steps do not say their mode, that none says this one counts nothing.
        ran = bool(row["steps"])
        wanted = [*(ALWAYS if ran or all_known else ()), *(OF_STEPS if ran else ())]
        if on_graph(mode):
            wanted += [*(CAPTURED if captures else ()), *([REPLAYED] if all_known else ())]
        for column, spec in wanted:
            scale = 1e3 if column.endswith("_ms") else 1
            found.add(spec, row[column], {"runtime_mode": mode}, scale=scale)


def _seconds(milliseconds: Any) -> float | None:
    known = number(milliseconds)
    return None if known is None else known / 1e3
