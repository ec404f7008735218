"""Which graphs carry the load, which were captured in vain, and which in the middle of it."""

from __future__ import annotations

import numpy as np

from profilemate.insight.figures.graphs import CAPTURED, HOTTEST, REPLAYED, captured_sizes, replays
from profilemate.insight.figures.graphs import UNUSED as UNUSED_GRAPHS
from profilemate.insight.figures.steps import STEPS, counting, modes_of, step_rows
from profilemate.insight.findings.base import BANDS, OURS, Finding, Rule, When
from profilemate.insight.findings.capture_sizes import as_config
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.graph_names import graph_names
from profilemate.insight.reading import NoData, count, floats, percent, rows_of, texts, total
from profilemate.parse.session.saved import SavedSession
from profilemate.schema.modes import FULL, PIECEWISE, on_graph

_BY_KERNELS = ("kernels:", "launches:")  # several sizes may launch the same kernels


def _diversity(session: SavedSession, t: Thresholds) -> list[Finding]:
    frame, share = replays(session, "runtime_mode", "descriptor")
    steps = floats(frame["steps"])
    every = int(steps.sum())
    if every < t["graph_steps_min"]:
        raise NoData(f"{count(every, 'step')} on graphs; {t['graph_steps_min']:g} are needed")
    if any(name.startswith(_BY_KERNELS) for name in texts(frame["descriptor"])):
        raise NoData("the recording tells graphs apart by their kernels, not by their sizes")
    hottest, share = HOTTEST.of(session) / 100, np.sort(share)[::-1]
    top = graph_names(frame)[int(steps.argmax())]
    for_most = int(np.searchsorted(np.cumsum(share), 0.9 - 1e-9)) + 1
    used = share[share > 0]
    evidence: dict[str, float | int | str | None] = {
        "graphs": len(used),
        "steps": every,
        "hottest": top,
        "hottest_pct": round(100 * hottest, 2),
        "graphs_for_90_pct": for_most,
        "effective_graphs": round(float(np.exp(-(used * np.log(used)).sum())), 2),
    }
    detail = f"{top} carries {percent(hottest)} of {count(every, 'step')} on graphs"
    most = count(for_most, "graph carries", "graphs carry")
    detail += f"; {most} 90 %, {len(used)} were used." if len(used) > 1 else "."
    if hottest >= t["dominant_share"]:
        title = f"Uniform workload: one graph carries {percent(hottest)} of the replays"
        return [DIVERSITY.finding("workload-uniform", title, detail, evidence)]
    if hottest < t["diverse_share"]:
        title = f"Diverse workload: {count(for_most, 'graph')} for 90 % of the replays"
        return [DIVERSITY.finding("workload-diverse", title, detail, evidence)]
    title = f"Mixed workload: {count(for_most, 'graph')} for 90 % of the replays"
    return [DIVERSITY.finding("workload-mixed", title, detail, evidence)]


DIVERSITY = Rule(
    name="workload",
    area="CUDA graphs",
    question="Is the workload uniform or diverse?",
    doc="Shares of the model steps that ran on each graph. effective_graphs is the exponential of "
    "their entropy: as many equally hot graphs would be as diverse.",
    verdicts={
        "workload-uniform": When("info", "the hottest graph has dominant_share or more"),
        "workload-mixed": When("info", "between the two"),
        "workload-diverse": When("info", "the hottest graph has less than diverse_share"),
    },
    thresholds=("dominant_share", "diverse_share", "graph_steps_min"),
    source=BANDS + "; the shares are profilemate's judgement",
    limits="Neither is bad: a uniform load needs few capture sizes, a diverse one many. Where "
    "graphs are told apart by their kernels, without profilemate's messages, it is not judged.",
    files=("cuda_graph_replay_latency.csv",),
    judge=_diversity,
)


def _unused(session: SavedSession, t: Thresholds) -> list[Finding]:
    rows_of(session, "cuda_graph_captures", ("runtime_mode", "num_tokens"))
    coverage = modes_of(session).frame
    captured, unused = int(CAPTURED.of(session)), UNUSED_GRAPHS.of(session)
    steps, replayed = STEPS.of(session), REPLAYED.value(session).value or 0
    if steps < t["graph_steps_min"] or not replayed:
        raise NoData(f"{count(steps, 'step')} and {count(replayed, 'graph')} replayed")
    cost = (total(coverage, "never_replayed_capture_ms") or 0.0) / 1e3
    evidence: dict[str, float | int | str | None] = {
        "captured": captured,
        "never_replayed": int(unused),
        "never_replayed_pct": round(100 * unused / captured, 2),
        "capture_sec": round(cost, 3),
    }
    if not unused:
        title = "Every captured graph was replayed"
        detail = f"{count(captured, 'graph')} captured, none in vain."
        return [UNUSED.finding("captures-used", title, detail, evidence)]
    by_mode = dict(
        zip(
            texts(coverage["runtime_mode"]),
            floats(coverage["graphs_never_replayed"]),
            strict=True,
        )
    )
    parts = [f"{n:,.0f} {m}" for m, n in by_mode.items() if on_graph(m) and n > 0]
    detail = f"{', '.join(parts)} of {count(captured, 'captured graph')}"
    detail += f", {cost:.1f} s of start-up and their memory for nothing in this run."
    value, kept, why = _shorter(session)
    turn = None if value is None else ("--compilation-config", value, why)
    evidence["kept_sizes"] = kept
    title = f"{count(unused, 'captured graph')} never replayed"
    slow = cost > t["unused_capture_sec"]
    name = "captures-unused"
    return [
        UNUSED.finding(
            name, title, detail, evidence, severity="warning" if slow else None, turn=turn
        )
    ]


def _shorter(session: SavedSession) -> tuple[str | None, int, str]:
    """A configuration without them, None if there is none; sizes it keeps; what it does."""
    usage, captures = session.table("cuda_graph_usage"), session.table("cuda_graph_captures")
    sizes = captured_sizes(session)
    used = set(floats(usage["num_tokens"])[~np.isnan(floats(usage["num_tokens"]))].astype(int))
    keep = [s for s in sizes if s in used or s == max(sizes)]
    captured, replayed = texts(captures["runtime_mode"]), texts(usage["runtime_mode"])
    mode = ""
    if PIECEWISE in captured and PIECEWISE not in replayed and FULL in replayed:
        mode = "FULL_DECODE_ONLY"
    if len(keep) == len(sizes) and not mode:
        return None, len(keep), ""
    why = "captures no PIECEWISE graphs" if mode else f"captures {len(keep)} of {len(sizes)} sizes"
    if mode and len(keep) < len(sizes):
        why += f", and {len(keep)} of {len(sizes)} sizes"
    why += "; no step of this run would have changed its graph"
    return as_config(keep if len(keep) < len(sizes) else None, mode), len(keep), why


UNUSED = Rule(
    name="captures",
    area="CUDA graphs",
    question="Were graphs captured that nothing ran on?",
    doc="Graphs that were captured in the recording, kept, and not replayed in it, dummy steps "
    "apart. The list that is proposed holds the sizes that any mode replayed, and the largest, so "
    "that no step that can run on a graph today runs eagerly. Where no PIECEWISE graph was "
    "replayed and FULL ones were, also the mode that captures none of them.",
    verdicts={
        "captures-unused": When(
            "info", "any; warning if capturing them took longer than unused_capture_sec"
        ),
        "captures-used": When("good", "none"),
    },
    thresholds=("unused_capture_sec", "graph_steps_min"),
    source=BANDS + "; the seconds are profilemate's judgement",
    limits="Another load may need them: a short benchmark uses few sizes. A recording that began "
    "after start-up holds no captures and is not judged. What memory they take is not known.",
    files=("cuda_graph_captures.csv", "cuda_graph_usage.csv", "cuda_graph_coverage.csv"),
    judge=_unused,
)


def _late(session: SavedSession, t: Thresholds) -> list[Finding]:
    captures = rows_of(session, "cuda_graph_captures", ("capture_time_sec",))
    steps = step_rows(session, "timestamp_sec")
    begins = floats(steps["timestamp_sec"])[counting(steps)]
    if not len(begins):
        raise NoData("no step with tokens was recorded")
    first = float(begins.min())
    when = floats(captures["capture_time_sec"])
    late = when > first + 0.0005  # the table's times have three decimals
    evidence = {
        "captured": len(captures),
        "late": int(late.sum()),
        "first_step_sec": round(first, 3),
        "last_capture_sec": round(float(when.max()), 3),
    }
    if not late.any():
        title = "All graphs were captured before the first request"
        detail = f"{count(len(captures), 'graph')}, the last at {when.max():.3f} s."
        return [LATE.finding("captures-before", title, detail, evidence)]
    title = f"{count(int(late.sum()), 'graph')} captured while serving"
    detail = (
        f"The first step ran at {first:.3f} s, the last capture at {when.max():.3f} s: each "
        "capture stalls the step that it falls into."
    )
    return [LATE.finding("captures-late", title, detail, evidence)]


LATE = Rule(
    name="capture-time",
    area="CUDA graphs",
    question="Were graphs captured in the middle of serving?",
    doc="Captures after the begin of the first step that is no dummy one and not without tokens.",
    verdicts={
        "captures-late": When("warning", "any"),
        "captures-before": When("good", "none"),
    },
    thresholds=(),
    source=OURS,
    limits="A warm-up request of your own counts as serving.",
    files=("cuda_graph_captures.csv", "cuda_graph_steps.csv"),
    judge=_late,
)

RULES = (DIVERSITY, UNUSED, LATE)
