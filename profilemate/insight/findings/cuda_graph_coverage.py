"""Do steps run on CUDA graphs, and if decode steps do not, which sizes are missing."""

from __future__ import annotations

import numpy as np

from profilemate.insight.figures.graphs import captured_sizes
from profilemate.insight.figures.steps import (
    EAGER_DECODE,
    GRAPH_GPU,
    GRAPH_STEPS,
    GRAPH_TOKENS,
    STEPS,
    DecodeSteps,
    decode_steps,
    modes_of,
)
from profilemate.insight.findings.base import BANDS, OURS, Evidence, Finding, Rule, When
from profilemate.insight.findings.capture_sizes import as_config, best_sizes, fewest
from profilemate.insight.findings.cuda_graph_padding import tokens_per_request
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.reading import NoData, count, floats, percent, texts
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables.step_rows import on_graphs
from profilemate.schema.modes import FULL, PIECEWISE


def _coverage(session: SavedSession, t: Thresholds) -> list[Finding]:
    modes = modes_of(session)
    every, known = int(STEPS.of(session)), modes.count(modes.known)
    if known < t["graph_steps_min"]:
        raise NoData(
            f"{count(known, 'model step')} of which it is known whether it ran on a graph; "
            f"{t['graph_steps_min']:g} are needed"
        )
    graphs, share = modes.count(modes.on_graph), GRAPH_STEPS.of(session) / 100
    tokens, gpu = (f.value(session).value for f in (GRAPH_TOKENS, GRAPH_GPU))
    evidence = {
        "steps": every,
        "steps_on_graphs": graphs,
        "steps_on_graphs_pct": round(100 * share, 2),
        "full_steps": modes.count(modes.mode == FULL),
        "piecewise_steps": modes.count(modes.mode == PIECEWISE),
        "steps_unknown": every - known,
        "tokens_on_graphs_pct": None if tokens is None else round(tokens, 2),
        "gpu_time_on_graphs_pct": None if gpu is None else round(gpu, 2),
    }
    if not graphs:
        return [
            COVERAGE.finding(
                "graphs-none",
                "No step ran on a CUDA graph",
                f"All {count(known, 'step')} ran eagerly: every kernel is launched by itself. A "
                "worker on the CPU never uses graphs; on a GPU this is a choice.",
                evidence,
                turn=(
                    "--enforce-eager",
                    None,
                    "leave it out, and no cudagraph_mode of NONE either",
                ),
            )
        ]
    detail = f"{graphs:,} of {count(known, 'step')}"
    detail += "" if tokens is None else f", {percent(tokens / 100)} of their tokens"
    detail += "" if gpu is None else f", {percent(gpu / 100)} of all GPU time"
    detail += f" on graphs: {evidence['full_steps']:,} FULL, {evidence['piecewise_steps']:,} "
    detail += "PIECEWISE."
    if every > known:
        detail += f" Of {every - known:,} more it is not known."
    title = f"{percent(share)} of the steps run on CUDA graphs"
    good = share >= t["graph_share_good"]
    return [COVERAGE.finding("graphs-most" if good else "graphs-some", title, detail, evidence)]


COVERAGE = Rule(
    name="graph-coverage",
    area="CUDA graphs",
    question="Do most steps run on CUDA graphs?",
    doc="Steps that ran on a FULL or PIECEWISE graph, of the steps with tokens whose mode is "
    "known. GPU time on graphs is the time in which kernels of graph launches ran, of the time in "
    "which the GPU ran anything.",
    verdicts={
        "graphs-none": When("warning", "no step"),
        "graphs-some": When("info", "a share of steps below graph_share_good"),
        "graphs-most": When("good", "a share of graph_share_good or more"),
    },
    thresholds=("graph_share_good", "graph_steps_min"),
    source=BANDS + "; where most begins is profilemate's judgement",
    limits="Large prefills run eagerly by design, and lose nothing by it: see eager-decode for the "
    "steps that do. Shares of steps and of GPU time differ for the same reason.",
    files=("cuda_graph_coverage.csv",),
    judge=_coverage,
)


def _eager_decode(session: SavedSession, t: Thresholds) -> list[Finding]:
    found = decode_steps(session)
    frame, eager = found.frame, found.eager
    tokens, on_graph = (
        floats(frame["unpadded_tokens"]),
        found.known & on_graphs(frame["runtime_mode"]),
    )
    if not on_graph.any():
        raise NoData("no step ran on a CUDA graph: see graph-coverage")
    every, missed = int(found.decode.sum()), int(eager.sum())
    if every < t["graph_steps_min"]:
        raise NoData(f"{count(every, 'decode step')}; {t['graph_steps_min']:g} are needed")
    share = EAGER_DECODE.of(session) / 100
    ran = floats(frame["num_tokens"])[on_graph]
    sizes = captured_sizes(session) or tuple(np.unique(ran[~np.isnan(ran)]).astype(int).tolist())
    if not sizes:
        raise NoData("the recording does not say what sizes its graphs have")
    evidence = {
        "decode_steps": every,
        "eager": missed,
        "eager_pct": round(100 * share, 2),
        "largest_size": max(sizes),
        "smallest_eager": int(tokens[eager].min()) if missed else None,
        "largest_eager": int(tokens[eager].max()) if missed else None,
    }
    if share <= t["eager_decode_share"]:
        return [_decode_on_graphs(found, t["eager_decode_share"], evidence)]
    title = f"{percent(share)} of the decode steps run eagerly"
    detail = (
        f"{missed:,} of {count(every, 'decode step')}, of {evidence['smallest_eager']:,} to "
        f"{evidence['largest_eager']:,} tokens; the largest captured size is {max(sizes):,}."
    )
    above = tokens[eager & (tokens > max(sizes))].astype(int)
    if len(above) * 2 < missed:
        detail += (
            " Most of them would fit a captured size: something else keeps them off (cascade "
            "attention, LoRA, a cudagraph_mode without decode, an attention backend)."
        )
        return [EAGER.finding("eager-decode", title, detail, evidence)]
    seen, times = np.unique(above, return_counts=True)
    steps = dict(zip(seen.tolist(), times.tolist(), strict=True))
    proposals = best_sizes(steps, _MORE_SIZES, multiple=tokens_per_request(session))
    more = fewest(proposals, int(above.sum()), t["padding_good"])
    why = (
        f"adds {count(len(more.sizes), 'size')} for the {count(len(above), 'step')} above the list"
    )
    turn = ("--compilation-config", as_config([*sizes, *more.sizes]), why)
    return [EAGER.finding("eager-decode", title, detail, evidence, turn=turn)]


def _decode_on_graphs(found: DecodeSteps, few: float, evidence: Evidence) -> Finding:
    """Of decode steps that nearly all run on graphs: FULL and PIECEWISE are not the same."""
    mode = texts(found.frame["runtime_mode"])[found.decode]
    every, missed = int(found.decode.sum()), int(found.eager.sum())
    full, pieces = int((mode == FULL).sum()), int((mode == PIECEWISE).sum())
    evidence = {**evidence, "full": full, "piecewise": pieces}
    detail = (
        f"{every - missed:,} of {count(every, 'decode step')} ran on a graph: "
        f"{full:,} FULL, {pieces:,} PIECEWISE."
    )
    if pieces <= few * every:
        return EAGER.finding("eager-decode-none", "Decode runs on CUDA graphs", detail, evidence)
    title = f"{percent(pieces / every)} of the decode steps run on PIECEWISE graphs"
    detail += (
        " There attention runs eagerly, with a launch for each piece; a FULL graph is one "
        "launch, where the attention backend can."
    )
    return EAGER.finding("decode-piecewise", title, detail, evidence)


_MORE_SIZES = 8  # sizes to add at most: each costs capture time and memory

EAGER = Rule(
    name="eager-decode",
    area="CUDA graphs",
    question="Do decode steps miss their graphs?",
    doc="Steps with decode tokens and no prefill tokens, without dummy ones: the share that ran in "
    "mode NONE. Where most of these are larger than the largest captured size, sizes for them are "
    "proposed: the fewest that keep their padding at padding_good, at most eight.",
    verdicts={
        "eager-decode": When("warning", "a share above eager_decode_share"),
        "decode-piecewise": When(
            "info", "a share of eager_decode_share or less, and a larger one on PIECEWISE graphs"
        ),
        "eager-decode-none": When("good", "neither: nearly all on FULL graphs"),
    },
    thresholds=("eager_decode_share", "graph_steps_min", "padding_good"),
    source=OURS,
    limits="Every size more costs capture time and GPU memory. vLLM keeps sizes up to "
    "--max-num-seqs times the tokens a request has in a decode step.",
    files=("cuda_graph_steps.csv", "cuda_graph_captures.csv"),
    judge=_eager_decode,
)

RULES = (COVERAGE, EAGER)
