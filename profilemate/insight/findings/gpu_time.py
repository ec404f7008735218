"""Does the GPU wait for the host, and does it take the same time for the same graph."""

from __future__ import annotations

import numpy as np

from profilemate.insight.figures.steps import counting, step_rows
from profilemate.insight.findings.base import OURS, Evidence, Finding, Rule, Severity, When
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.graph_names import graph_names
from profilemate.insight.reading import NoData, count, floats, percent, rows_of, texts
from profilemate.parse.session.saved import SavedSession
from profilemate.schema.modes import PIECEWISE

_SLOWED = (
    " torch's profiler slows the host a good deal: record with Nsight Systems before you act on it."
)


def _by_torch(session: SavedSession) -> bool:
    """A recording of torch's profiler: its own cost is in every time of the host."""
    kinds = [source.kind for source in session.metadata.sources]
    return any(kind is not None and kind.by_torch for kind in kinds)


def _launches(session: SavedSession, t: Thresholds) -> list[Finding]:
    frame = step_rows(session, "runtime_mode", "launch_ms", "graph_gpu_busy_ms")
    launch, busy = floats(frame["launch_ms"]), floats(frame["graph_gpu_busy_ms"])
    known = (launch > 0) & (busy > 0) & counting(frame)
    steps = int(known.sum())
    if not steps:
        raise NoData("no step has both the time of its graph launches and that of the GPU")
    if steps < t["graph_steps_min"]:
        raise NoData(f"{count(steps, 'step')} with both times; {t['graph_steps_min']:g} are needed")
    bound = known & (launch > busy)
    share = float(bound.sum() / steps)
    mode = texts(frame["runtime_mode"])
    evidence = {
        "steps": steps,
        "launch_bound": int(bound.sum()),
        "launch_bound_pct": round(100 * share, 2),
        "launch_p50_ms": round(float(np.median(launch[known])), 4),
        "gpu_busy_p50_ms": round(float(np.median(busy[known])), 4),
        "piecewise": int((bound & (mode == PIECEWISE)).sum()),
    }
    detail = (
        f"The median step spends {evidence['launch_p50_ms']:.3f} ms in graph launches and "
        f"{evidence['gpu_busy_p50_ms']:.3f} ms on the GPU."
    )
    if share <= t["launch_bound_share"]:
        title = "Graph launches are cheap"
        return [LAUNCHES.finding("launches-cheap", title, detail, evidence)]
    detail += f" In {bound.sum():,} of {count(steps, 'step')} launching took longer than running."
    severity: Severity | None = None
    if _by_torch(session):
        severity, detail = "info", detail + _SLOWED
    turn = None
    if evidence["piecewise"] * 2 > bound.sum():
        value = '{"cudagraph_mode": "FULL_AND_PIECEWISE"}'
        turn = (
            "--compilation-config",
            value,
            "one launch for a decode step instead of one a piece",
        )
    title = f"Launch-bound: {percent(share)} of graph steps take longer to launch than to run"
    return [LAUNCHES.finding("launch-bound", title, detail, evidence, severity=severity, turn=turn)]


LAUNCHES = Rule(
    name="launch-cost",
    area="CUDA graphs",
    question="Does launching graphs take longer than running them?",
    doc="Steps in which launch_ms is more than graph_gpu_busy_ms, of the steps that have both.",
    verdicts={
        "launch-bound": When(
            "warning",
            "a share above launch_bound_share; info where torch's profiler recorded it",
        ),
        "launches-cheap": When("good", "a share of launch_bound_share or less"),
    },
    thresholds=("launch_bound_share", "graph_steps_min"),
    source=OURS,
    limits="Recorders make calls slower, torch's profiler by several times. A launch call that has "
    "to wait for room in the GPU's queue counts as launch time too.",
    files=("cuda_graph_steps.csv",),
    judge=_launches,
)


def _host(session: SavedSession, t: Thresholds) -> list[Finding]:
    columns = ("timestamp_sec", "gpu_busy_ms", "prefill_tokens", "decode_tokens", "pid")
    frame = step_rows(session, *columns)
    busy = floats(frame["gpu_busy_ms"])
    if np.isnan(busy).all():
        raise NoData("no step has GPU records")
    at, pid = floats(frame["timestamp_sec"]), texts(frame["pid"])
    prefill, decode = floats(frame["prefill_tokens"]), floats(frame["decode_tokens"])
    plain = counting(frame) & ~np.isnan(busy)
    told = not np.isnan(prefill[plain]).all()
    what = "decode step" if told else "step"
    if told:
        plain &= (prefill == 0) & (decode > 0)
    # Decode steps follow each other without a pause; before any other step there may be one.
    pairs = np.flatnonzero(plain[:-1] & plain[1:] & (pid[:-1] == pid[1:]))
    period = 1e3 * (at[pairs + 1] - at[pairs])
    pairs, period = pairs[period > 0], period[period > 0]
    if len(pairs) < t["graph_steps_min"]:
        raise NoData(
            f"{count(len(pairs), what)} followed by another; {t['graph_steps_min']:g} are needed"
        )
    share = float(np.median(busy[pairs] / period))
    evidence = {
        "steps": len(pairs),
        "gpu_busy_pct": round(100 * share, 2),
        "period_p50_ms": round(float(np.median(period)), 4),
        "gpu_busy_p50_ms": round(float(np.median(busy[pairs])), 4),
    }
    detail = (
        f"From one step to the next it is {evidence['period_p50_ms']:.3f} ms, of which the GPU "
        f"works {evidence['gpu_busy_p50_ms']:.3f} ms (medians of {count(len(pairs), what)})."
    )
    if share >= t["gpu_busy_low"]:
        title = f"The GPU is busy {percent(share)} of a {what}"
        return [HOST.finding("gpu-busy", title, detail, evidence)]
    severity: Severity | None = None
    if _by_torch(session):
        severity, detail = "info", detail + _SLOWED
    title = f"Host-bound: the GPU works {percent(share)} of a {what}"
    turn = ("--async-scheduling", None, "schedules the next step while this one runs")
    return [HOST.finding("host-bound", title, detail, evidence, severity=severity, turn=turn)]


HOST = Rule(
    name="host",
    area="CUDA graphs",
    question="Does the GPU wait for the host between decode steps?",
    doc="gpu_busy_ms of a decode step over the time to the begin of the next one, the median over "
    "all decode steps that another one follows in the same process (all steps, where the recording "
    "does not tell decode from prefill).",
    verdicts={
        "host-bound": When(
            "warning", "a median below gpu_busy_low; info where torch's profiler recorded it"
        ),
        "gpu-busy": When("good", "a median of gpu_busy_low or more"),
    },
    thresholds=("gpu_busy_low", "graph_steps_min"),
    source=OURS,
    limits="With pipeline parallelism a GPU waits for the other stages, and recorders slow the "
    "host. With one request at a time and a small model it is what the model costs.",
    files=("cuda_graph_steps.csv",),
    judge=_host,
)


def _jitter(session: SavedSession, t: Thresholds) -> list[Finding]:
    columns = ("gpu_steps", "gpu_span_p50_ms", "gpu_span_p99_ms")
    frame = rows_of(session, "cuda_graph_replay_latency", columns)
    steps = floats(frame["gpu_steps"])
    p50, p99 = floats(frame["gpu_span_p50_ms"]), floats(frame["gpu_span_p99_ms"])
    told = (steps >= t["jitter_steps_min"]) & (p50 > 0)
    if not told.any():
        raise NoData(
            f"no graph has {t['jitter_steps_min']:g} replays with GPU records "
            f"(the most are {np.nanmax(np.append(steps, 0)):.0f})"
        )
    ratio = np.where(told, p99 / np.where(p50 > 0, p50, 1.0), 0.0)
    worst = int(ratio.argmax())
    name = graph_names(frame)[worst]
    uneven = int((ratio >= t["jitter_ratio"]).sum())
    evidence: Evidence = {
        "graphs": int(told.sum()),
        "uneven": uneven,
        "worst": name,
        "ratio": round(float(ratio[worst]), 3),
        "gpu_span_p50_ms": round(float(p50[worst]), 4),
        "gpu_span_p99_ms": round(float(p99[worst]), 4),
    }
    detail = f"{name}: median {p50[worst]:.3f} ms, p99 {p99[worst]:.3f} ms ({ratio[worst]:.2f} x)."
    if not uneven:
        title = "The same graph takes the same time"
        return [JITTER.finding("replays-even", title, detail, evidence)]
    title = f"Uneven replays: p99 is {ratio[worst]:.1f} x the median of {name}"
    return [JITTER.finding("replays-uneven", title, detail, evidence)]


JITTER = Rule(
    name="jitter",
    area="CUDA graphs",
    question="Does the same graph take the same time?",
    doc="99th percentile over median of a graph's GPU span per step, the largest of all graphs "
    "with jitter_steps_min replays or more.",
    verdicts={
        "replays-uneven": When("info", "jitter_ratio or more"),
        "replays-even": When("good", "less"),
    },
    thresholds=("jitter_ratio", "jitter_steps_min"),
    source=OURS,
    limits="Attention takes longer with longer contexts, in the same graph: over a long run a "
    "median and a 99th percentile differ without any fault. Clocks, other users of the GPU and, "
    "with several ranks, waiting for the slowest are the other reasons.",
    files=("cuda_graph_replay_latency.csv",),
    judge=_jitter,
)

RULES = (LAUNCHES, HOST, JITTER)
