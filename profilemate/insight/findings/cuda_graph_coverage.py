"""Do steps run on CUDA graphs, and if decode steps do not, which sizes are missing."""

from __future__ import annotations

import numpy as np

from profilemate.insight.findings.base import BANDS, OURS, Finding, Rule, When
from profilemate.insight.findings.capture_sizes import as_config, best_sizes, fewest
from profilemate.insight.findings.cuda_graph_padding import captured_sizes, tokens_per_request
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.reading import (
    NoData,
    count,
    floats,
    percent,
    rows_of,
    texts,
    total,
    truths,
)
from profilemate.parse.session.saved import SavedSession

GRAPHS = ("FULL", "PIECEWISE")


def _coverage(session: SavedSession, t: Thresholds) -> list[Finding]:
    frame = rows_of(session, "cuda_graph_coverage", ("runtime_mode", "steps"))
    mode, steps = texts(frame["runtime_mode"]), floats(frame["steps"])
    on_graph, told = np.isin(mode, GRAPHS), mode != ""
    every, known = int(np.nansum(steps)), int(np.nansum(steps[told]))
    if known < t["graph_steps_min"]:
        raise NoData(
            f"{count(known, 'model step')} of which it is known whether it ran on a graph; "
            f"{t['graph_steps_min']:g} are needed"
        )
    part = frame[on_graph]
    graphs = int(np.nansum(steps[on_graph]))
    share = graphs / known
    tokens, gpu = total(part, "token_share"), total(part, "gpu_graph_share")
    evidence = {
        "steps": every,
        "steps_on_graphs": graphs,
        "steps_on_graphs_pct": round(100 * share, 2),
        "full_steps": int(np.nansum(steps[mode == "FULL"])),
        "piecewise_steps": int(np.nansum(steps[mode == "PIECEWISE"])),
        "steps_unknown": every - known,
        "tokens_on_graphs_pct": None if tokens is None else round(100 * tokens, 2),
        "gpu_time_on_graphs_pct": None if gpu is None else round(100 * gpu, 2),
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
    detail += "" if tokens is None else f", {percent(tokens)} of their tokens"
    detail += "" if gpu is None else f", {percent(gpu)} of all GPU time"
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
    columns = ("runtime_mode", "unpadded_tokens", "prefill_tokens", "decode_tokens", "dummy")
    frame = rows_of(session, "cuda_graph_steps", columns)
    mode, tokens = texts(frame["runtime_mode"]), floats(frame["unpadded_tokens"])
    prefill, decode = floats(frame["prefill_tokens"]), floats(frame["decode_tokens"])
    real = ~truths(frame["dummy"]) & (mode != "")
    if np.isnan(prefill[real]).all():
        raise NoData("the recording does not tell decode steps from prefill")
    if not np.isin(mode[real], GRAPHS).any():
        raise NoData("no step ran on a CUDA graph: see graph-coverage")
    decodes = real & (prefill == 0) & (decode > 0)
    eager = decodes & (mode == "NONE")
    every, missed = int(decodes.sum()), int(eager.sum())
    if every < t["graph_steps_min"]:
        raise NoData(f"{count(every, 'decode step')}; {t['graph_steps_min']:g} are needed")
    share = missed / every
    ran = floats(frame["num_tokens"])[real & (mode != "NONE")]
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
        title = "Decode runs on CUDA graphs"
        detail = f"{every - missed:,} of {count(every, 'decode step')} ran on a graph."
        return [EAGER.finding("eager-decode-none", title, detail, evidence)]
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
        "eager-decode-none": When("good", "a share of eager_decode_share or less"),
    },
    thresholds=("eager_decode_share", "graph_steps_min", "padding_good"),
    source=OURS,
    limits="Every size more costs capture time and GPU memory. vLLM keeps sizes up to "
    "--max-num-seqs times the tokens a request has in a decode step.",
    files=("cuda_graph_steps.csv", "cuda_graph_captures.csv"),
    judge=_eager_decode,
)

RULES = (COVERAGE, EAGER)
