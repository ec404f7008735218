"""What padding to captured sizes costs, and the sizes that would have cost less."""

from __future__ import annotations

import numpy as np

from profilemate.insight.figures.graphs import (
    PADDING,
    PADDING_GPU,
    Padded,
    captured_sizes,
    padded_steps,
)
from profilemate.insight.findings.base import OURS, Finding, Rule, When
from profilemate.insight.findings.capture_sizes import (
    Proposal,
    as_config,
    best_sizes,
    fewest,
    padding_of,
)
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.reading import (
    NoData,
    count,
    floats,
    percent,
    total,
    truths,
)
from profilemate.parse.session.saved import SavedSession

_SLACK = 0.01  # what vLLM pads and what its list explains may differ by this share
_WORTH = 0.75  # a list that leaves more than this of the padding is not worth a restart


def tokens_per_request(session: SavedSession) -> int:
    """Tokens a request has in a decode step: more than 1 with speculative decoding."""
    for name in ("cuda_graph_captures", "cuda_graph_usage"):
        frame = session.table(name)
        if frame.empty:
            continue
        tokens, requests = floats(frame["num_tokens"]), floats(frame["num_reqs"])
        uniform = truths(frame["uniform"]) & (requests > 0) & (tokens % requests == 0)
        each = np.unique(tokens[uniform] / requests[uniform])
        if len(each) == 1:
            return int(each[0])
    return 1


def _judge(session: SavedSession, t: Thresholds) -> list[Finding]:
    seen = padded_steps(session)
    steps = sum(seen.steps.values())
    if steps < t["graph_steps_min"]:
        raise NoData(f"{count(steps, 'step')} on graphs; {t['graph_steps_min']:g} are needed")
    share = PADDING.of(session) / 100
    wasted = total(session.table("cuda_graph_coverage"), "padding_gpu_ms")
    gpu = PADDING_GPU.value(session).value
    evidence: dict[str, float | int | str | None] = {
        "padding_pct": round(100 * share, 2),
        "padding_tokens": seen.padding,
        "padded_tokens": seen.padded,
        "steps": steps,
        "padding_gpu_ms": None if wasted is None else round(wasted, 3),
        "padding_gpu_pct": None if gpu is None else round(gpu, 2),
    }
    detail = f"{seen.padding:,} of {seen.padded:,} tokens on graphs were padding"
    if gpu is not None and wasted is not None:
        detail += f", and up to {wasted:,.1f} ms ({percent(gpu / 100)}) of the graphs' GPU time"
    detail += "."
    if share <= t["padding_good"]:
        title = f"Padding is small: {percent(share)} of the tokens on graphs"
        return [RULE.finding("padding-good", title, detail, evidence)]
    proposal, said = _better(session, seen, t["padding_good"])
    turn = None
    if proposal is not None:
        then = proposal.padding / (seen.tokens + proposal.padding)
        evidence |= {"proposed_sizes": len(proposal.sizes), "proposed_pct": round(100 * then, 2)}
        why = (
            f"the same steps would have had {percent(then)} padding, with "
            f"{count(len(proposal.sizes), 'size')}"
        )
        turn = ("--compilation-config", as_config(proposal.sizes), why)
    high = share >= t["padding_high"]
    word = "wasteful" if high else "noticeable"
    title = f"Padding is {word}: {percent(share)} of the tokens on graphs"
    name = "padding-high" if high else "padding-some"
    return [RULE.finding(name, title, f"{detail} {said}".strip(), evidence, turn=turn)]


def _better(session: SavedSession, seen: Padded, target: float) -> tuple[Proposal | None, str]:
    """A better list, if the padding follows from the list at all, and what to say of it."""
    captured = captured_sizes(session)
    now = captured or tuple(sorted(seen.by_size))
    explained = padding_of(seen.steps, now)
    if explained is None or abs(explained - seen.padding) > _SLACK * seen.padded:
        return None, (
            "The sizes do not explain it (data-parallel ranks pad to the largest of them): no list "
            "is proposed."
        )
    proposals = best_sizes(
        seen.steps, len(now), largest=max(now), multiple=tokens_per_request(session)
    )
    best = fewest(proposals, seen.tokens, target)
    said = f"{count(len(now), 'size')} {'captured' if captured else 'seen in use'} now."
    if best.padding > _WORTH * seen.padding:
        return None, f"{said} No list of as many sizes would be much better."
    return best, said


RULE = Rule(
    name="padding",
    area="CUDA graphs",
    question="How much is computed for nothing because steps are padded?",
    doc="Padding tokens over padded tokens, of the steps on graphs. The list of sizes that is "
    "proposed is worked out exactly, by dynamic programming: of all lists with at most as many "
    "sizes as now, the shortest that brings padding to padding_good, or the best. The largest size "
    "stays, and sizes are multiples of a request's tokens in a decode step. Nothing is proposed "
    "where the present sizes do not explain the padding that was seen, or little would be gained.",
    verdicts={
        "padding-high": When("warning", "padding_high or more"),
        "padding-some": When("info", "between padding_good and padding_high"),
        "padding-good": When("good", "padding_good or less"),
    },
    thresholds=("padding_good", "padding_high", "graph_steps_min"),
    source=OURS,
    limits="GPU time is taken as proportional to tokens: an upper bound, a small decode step costs "
    "the same with one token or eight. The list is best for the load that was recorded; sequence "
    "parallelism needs sizes that are multiples of the tensor-parallel size.",
    files=("cuda_graph_padding.csv", "cuda_graph_captures.csv", "cuda_graph_coverage.csv"),
    judge=_judge,
)

RULES = (RULE,)
