"""Does cached content live long enough: evictions within seconds of their allocation, and idle."""

from __future__ import annotations

import numpy as np

from profilemate.insight.figures import kv
from profilemate.insight.findings.base import BANDS, Evidence, Finding, Rule, When
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.reading import NoData, count, floats, percent, window
from profilemate.parse.session.saved import SavedSession

NONE = "No cached content was evicted"


def _judge(session: SavedSession, t: Thresholds) -> list[Finding]:
    blocks, used_sec = int(kv.BLOCKS.of(session)), float(kv.held(session)[1].sum())
    evicted = int(kv.EVICTIONS.of(session))
    short, idle_limit = t["kv_life_sec"], t["kv_idle_sec"]
    times = window(session)
    if times is None:
        raise NoData("metadata.json does not say when the recording began")
    begin, end = times
    evictions = session.table("kv_cache_evictions")
    if not evicted:
        detail = f"All that was cached found room in {count(blocks, 'block')} for {used_sec:.1f} s."
        none = {"evictions": 0, "seconds": round(used_sec, 3)}
        return [RULE.finding("kv-evictions-none", NONE, detail, none)]
    if end - begin <= short:
        raise NoData(
            f"the recording is {end - begin:.1f} s long: no life in it can be longer than "
            f"{short:g} s ({count(evicted, 'eviction')})"
        )
    at = floats(evictions["timestamp_sec"])
    life, idle = floats(evictions["lifetime_sec"]), floats(evictions["idle_sec"])
    # Later than that, a life that is not known began before the recording: it was longer.
    life_told, idle_told = at >= begin + short, at >= begin + idle_limit
    told = int(life_told.sum())
    if told < t["kv_evictions_min"]:
        raise NoData(
            f"{count(told, 'eviction')} later than {short:g} s into the recording; "
            f"{t['kv_evictions_min']:g} are needed"
        )
    early = int((life[life_told] < short).sum())
    idle_known = np.where(np.isnan(idle), np.inf, idle)[idle_told]
    median_idle = float(np.median(idle_known)) if len(idle_known) else np.inf
    allocated = kv.ALLOCATIONS.value(session).value
    rate = allocated / used_sec if used_sec and allocated is not None else 0.0
    evidence: Evidence = {
        "evictions": evicted,
        "judged": told,
        "early": early,
        "early_pct": round(100 * early / told, 2),
        "median_life_sec": _median(life[life_told]),
        "median_idle_sec": round(median_idle, 3) if np.isfinite(median_idle) else None,
        "allocations_per_sec": round(rate, 1),
        "total_blocks": blocks,
        "blocks_for_life": round(rate * short) if rate else None,
    }
    lives = _lives(evidence, early / told, t)
    # More room and less room are not advised at once.
    churns = lives.rule == "kv-evictions-early"
    return [lives, *([] if churns else _idle(evidence, median_idle, idle_limit))]


def _lives(evidence: Evidence, share: float, t: Thresholds) -> Finding:
    short = t["kv_life_sec"]
    detail = (
        f"{percent(share)} of {count(float(evidence['judged'] or 0), 'eviction')} hit content that "
        f"was allocated less than {short:g} s before; the median life was "
        f"{_seconds(evidence['median_life_sec'])}."
    )
    if share < t["kv_early_share"]:
        title = f"Cached content lives long: {percent(share)} evicted within {short:g} s"
        return RULE.finding("kv-evictions-healthy", title, detail, evidence)
    needed, blocks = int(str(evidence["blocks_for_life"] or 0)), evidence["total_blocks"]
    why = (
        f"at {evidence['allocations_per_sec']:,} allocations a second, a mean life of {short:g} s "
    )
    why += f"takes about {needed:,} blocks"
    if needed <= int(str(blocks)):
        why += f", fewer than the {blocks:,} there are: perhaps the load comes in bursts, or "
        why += "running requests hold most of them; more blocks help at the peak"
    else:
        why += f" (there are {blocks:,})"
    why += "; or offload the KV cache"
    turn = ("--gpu-memory-utilization", None, why)
    title = f"The cache churns: {percent(share)} of evictions within {short:g} s"
    return RULE.finding("kv-evictions-early", title, detail, evidence, turn=turn)


def _idle(evidence: Evidence, median: float, limit: float) -> list[Finding]:
    if median < limit:
        return []
    said = "longer than the recording can tell" if np.isinf(median) else f"{median:.1f} s"
    detail = (
        f"Half of the evicted content had not been used for {said} or more: room for it was no "
        f"shortage, a smaller cache would lose little."
    )
    title = f"Evicted content was stale: idle for {said} (median)"
    return [RULE.finding("kv-evictions-stale", title, detail, evidence)]


def _median(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    """The median, where lives that are not known are the longest; None where it is one of them."""
    median = float(np.median(np.where(np.isnan(values), np.inf, values)))
    return round(median, 3) if np.isfinite(median) else None


def _seconds(value: object) -> str:
    return "longer than the recording" if value is None else f"{value} s"


RULE = Rule(
    name="kv-evictions",
    area="KV cache",
    question="Does cached content live long enough to be used again?",
    doc="Of the evictions that happened later than kv_life_sec after the recording's begin, the "
    "share whose content was allocated less than kv_life_sec before. Of these alone it is known "
    "for certain: earlier ones could not have lived longer, and a life whose begin was not "
    "recorded is longer than the limit. The same holds for the idle time and kv_idle_sec. "
    "blocks_for_life is Little's law: allocations a second times kv_life_sec.",
    verdicts={
        "kv-evictions-early": When(
            "warning", "the share of lives under kv_life_sec is kv_early_share or more"
        ),
        "kv-evictions-healthy": When("good", "the share is below kv_early_share"),
        "kv-evictions-none": When("good", "no cached content was evicted"),
        "kv-evictions-stale": When(
            "info", "the median idle time is kv_idle_sec or more, and lives are not short"
        ),
    },
    thresholds=("kv_life_sec", "kv_early_share", "kv_idle_sec", "kv_evictions_min"),
    source=BANDS,
    limits="Evictions cost only where the content would have been asked for again: read it with "
    "the prefix hit rate. A recording that is not longer than kv_life_sec is not judged.",
    files=("kv_cache_evictions.csv", "kv_cache_usage.csv", "kv_cache_summary.txt", "metadata.json"),
    judge=_judge,
)

RULES = (RULE,)
