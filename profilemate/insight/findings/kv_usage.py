"""Is the KV cache too large, too small, or right: by the bands on its peak."""

from __future__ import annotations

import math

from profilemate.insight.figures import kv
from profilemate.insight.findings.base import BANDS, Finding, Rule, When
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.reading import count, percent
from profilemate.parse.session.saved import SavedSession

Figures = dict[str, float | int | None]


def _judge(session: SavedSession, t: Thresholds) -> list[Finding]:
    peak_share, mean = kv.PEAK.of(session) / 100, kv.MEAN.of(session) / 100
    blocks, total = int(kv.PEAK_BLOCKS.of(session)), int(kv.BLOCKS.of(session))
    time_full = kv.time_above(session, t["kv_usage_full"])
    seconds = float(kv.held(session)[1].sum())
    preempted = kv.PREEMPTIONS.value(session).value
    # Events are counted for the whole recording: with several engines they are nobody's.
    refused = None if session.ranks() else session.metadata.events.get("kv.alloc_failed")
    target = t["kv_usage_good_to"]
    wanted = math.ceil(blocks / target) if target else None
    evicted = kv.EVICTIONS.value(session).value
    saturated = blocks >= total or bool(preempted or refused)
    evidence: Figures = {
        "peak_pct": round(100 * peak_share, 2),
        "mean_pct": round(100 * mean, 2),
        "time_above_full_pct": round(100 * time_full, 2),
        "peak_blocks": blocks,
        "total_blocks": total,
        "blocks_for_target": None if saturated else wanted,
        "preemptions": None if preempted is None else int(preempted),
        "requests_that_did_not_fit": None if refused is None else int(refused),
        "seconds": round(seconds, 3),
    }
    peak = percent(peak_share)
    detail = (
        f"At its peak {blocks:,} of {count(total, 'block')} were in use "
        f"({peak}), {percent(mean)} on average over {seconds:.1f} s."
    )
    if peak_share > t["kv_usage_full"]:
        full = percent(t["kv_usage_full"], 0)
        detail += f" It was above {full} for {percent(time_full)} of that time."
        # How long it stayed as it was at the end is not known.
        passed = kv.held(session)[0][-1] <= t["kv_usage_full"]
        if passed and time_full < t["kv_full_time"] and not (preempted or refused):
            title = f"KV cache full for a moment: peak usage {peak}"
            return [RULE.finding("kv-usage-peak", title, detail, evidence)]
        return [_full(peak, detail, evidence, percent(target, 0))]
    if peak_share < t["kv_usage_low"]:
        title = f"KV cache over-provisioned: peak usage {peak}"
        if evicted:
            title = f"Running requests use little of the KV cache: peak {peak}"
            detail += (
                f" The rest held cached content, and {count(evicted, 'block')} of it had to go: "
                "what room that needs is for kv-evictions to say."
            )
        turn = None if evicted or wanted is None else _smaller(wanted, percent(target, 0))
        return [RULE.finding("kv-usage-low", title, detail, evidence, turn=turn)]
    if peak_share < t["kv_usage_good_from"]:
        title = f"KV cache has room: peak usage {peak}"
        return [RULE.finding("kv-usage-fair", title, detail, evidence)]
    if peak_share <= target:
        title = f"KV cache well sized: peak usage {peak}"
        return [RULE.finding("kv-usage-good", title, detail, evidence)]
    title = f"KV cache close to full: peak usage {peak}"
    return [RULE.finding("kv-usage-high", title, detail, evidence)]


def _smaller(wanted: int, target: str) -> tuple[str, None, str]:
    """What a pool that is too large could be.

    No value is proposed: vLLM refuses one in which no request of --max-model-len fits, and what
    that takes was not recorded.
    """
    why = (
        f"{wanted:,} blocks and the null block would put this peak at {target}, if one request of "
        "--max-model-len, which is not recorded, needs no more; or lower --gpu-memory-utilization, "
        "or raise --max-num-seqs to use what is there"
    )
    return "--num-gpu-blocks-override", None, why


def _full(peak: str, detail: str, evidence: Figures, target: str) -> Finding:
    wanted, preempted = evidence["blocks_for_target"], evidence["preemptions"]
    if refused := evidence["requests_that_did_not_fit"]:
        detail += f" {count(refused, 'time')} a request did not fit and had to wait."
    title = f"KV cache under-provisioned: peak usage {peak}"
    if preempted:
        title += f", {count(preempted, 'preemption')}"
    why = "more blocks; how many cannot be told, the pool was the limit"
    if wanted is not None:
        why = f"{wanted:,} blocks would put this peak at {target}"
    return RULE.finding(
        "kv-usage-full",
        title,
        detail,
        evidence,
        severity="critical" if preempted else None,
        turn=("--gpu-memory-utilization", None, why),
    )


RULE = Rule(
    name="kv-usage",
    area="KV cache",
    question="Is the KV cache over- or under-provisioned?",
    doc="Peak usage: the most blocks in use after any operation, over all blocks without the "
    "null block. The mean is weighted by time, from the first change of usage to the "
    "last, and decides nothing: a benchmark's ramp pulls it down, while requests wait at the peak.",
    verdicts={
        "kv-usage-full": When("warning", "peak above kv_usage_full; critical with a preemption"),
        "kv-usage-peak": When(
            "info",
            "the same for a share of time below kv_full_time, and no request had to stop or wait",
        ),
        "kv-usage-high": When("info", "peak above kv_usage_good_to, up to kv_usage_full"),
        "kv-usage-good": When("good", "peak from kv_usage_good_from to kv_usage_good_to"),
        "kv-usage-fair": When("info", "peak from kv_usage_low to kv_usage_good_from"),
        "kv-usage-low": When(
            "info", "peak below kv_usage_low; unused blocks cost memory, not speed"
        ),
    },
    thresholds=(
        *("kv_usage_low", "kv_usage_good_from", "kv_usage_good_to"),
        *("kv_usage_full", "kv_full_time"),
    ),
    source=BANDS,
    limits="A peak is that of the load that was recorded: a short benchmark, or one that ends "
    "before its requests are long, does not reach the peak of production. Where the pool was the "
    "limit, demand beyond it was never seen, so no size can be proposed.",
    files=("kv_cache_summary.txt", "kv_cache_usage.csv", "kv_preemptions.csv", "metadata.json"),
    judge=_judge,
)

RULES = (RULE,)
