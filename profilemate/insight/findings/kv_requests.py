"""What requests met: preemptions, the prefix cache, and waiting."""

from __future__ import annotations

import numpy as np

from profilemate.insight.figures import kv
from profilemate.insight.figures.base import watched
from profilemate.insight.figures.steps import TOKENS
from profilemate.insight.findings.base import OURS, Finding, Rule, When
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.reading import (
    NoData,
    count,
    floats,
    percent,
    rows_of,
    table_of,
)
from profilemate.parse.session.saved import SavedSession


def _preemptions(session: SavedSession, t: Thresholds) -> list[Finding]:
    number = int(kv.PREEMPTIONS.of(session))
    frame = table_of(session, "kv_preemptions", ("timestamp_sec", "request_id"))
    if not number:
        detail = "Every request that had started ran to its end without giving back its blocks."
        return [PREEMPTIONS.finding("preemptions-none", "No preemption", detail, {"count": 0})]
    requests = int(frame["request_id"].nunique())
    lost, run = kv.LOST.value(session).value, TOKENS.value(session).value
    share = lost / run if run and lost is not None else None
    batch = _smallest_batch(session, floats(frame["timestamp_sec"]))
    evidence = {
        "count": number,
        "requests": requests,
        "tokens_lost": None if lost is None else int(lost),
        "tokens_run": int(run) if run else None,
        "lost_pct": None if share is None else round(100 * share, 2),
        "smallest_batch": batch,
    }
    detail = (
        f"{count(requests, 'request')} had to give back all blocks and lost "
        f"{'a number of' if lost is None else format(lost, ',.0f')} computed tokens"
        + ("." if share is None else f", {percent(share)} of all that was computed.")
    )
    why = "more blocks, so that fewer requests have to stop"
    if batch is not None and batch > 1:
        why += f"; or --max-num-seqs below {batch}, the smallest batch at which it happened"
    bad = share is not None and share >= t["preempt_lost_share"]
    return [
        PREEMPTIONS.finding(
            "preemptions",
            f"{count(number, 'preemption')}: requests run out of KV cache",
            detail,
            evidence,
            severity="critical" if bad else None,
            turn=("--gpu-memory-utilization", None, why),
        )
    ]


def _smallest_batch(
    session: SavedSession, at: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> int | None:
    """Requests in the last step before each preemption: the least of them."""
    steps = session.table("cuda_graph_steps")
    if steps.empty or not {"timestamp_sec", "requests"} <= set(steps.columns):
        return None
    begin, requests = floats(steps["timestamp_sec"]), floats(steps["requests"])
    known = ~np.isnan(requests) & (requests > 0)
    before = np.searchsorted(begin[known], at) - 1
    before = before[before >= 0]
    return int(requests[known][before].min()) if len(before) else None


PREEMPTIONS = Rule(
    name="preemptions",
    area="KV cache",
    question="Do requests lose work because the cache is full?",
    doc="Rows of kv_preemptions.csv. The share lost is tokens_lost over all tokens that were run "
    "(unpadded). smallest_batch is the number of requests in the last step before a preemption, "
    "the least of all.",
    verdicts={
        "preemptions": When(
            "warning", "any preemption; critical from a share lost of preempt_lost_share on"
        ),
        "preemptions-none": When("good", "none"),
    },
    thresholds=("preempt_lost_share",),
    source="vLLM's advice on preemption: --gpu-memory-utilization, --max-num-seqs; the share that "
    "makes it critical is profilemate's judgement",
    limits="Tokens that are still in the prefix cache when the request resumes are not computed "
    "again: tokens_lost is the most that it can cost.",
    files=("kv_preemptions.csv", "cuda_graph_coverage.csv", "cuda_graph_steps.csv"),
    judge=_preemptions,
)


def _prefix(session: SavedSession, t: Thresholds) -> list[Finding]:
    least = t["prefix_lookups_min"]
    if session.table("kv_prefix_cache").empty:
        return _off(session, least)
    lookups = int(kv.LOOKUPS.of(session))
    if lookups < least:
        raise NoData(f"{count(lookups, 'look-up')} in the prefix cache; {least:g} are needed")
    rate = kv.HIT_RATE.of(session) / 100
    asked, hits = int(kv.ASKED.of(session)), int(kv.FOUND.of(session))
    evidence = {
        "lookups": lookups,
        "tokens_asked": asked,
        "tokens_hit": hits,
        "hit_rate_pct": round(100 * rate, 2),
    }
    detail = f"{hits:,} of {asked:,} prompt tokens were found, in {count(lookups, 'look-up')}."
    if rate >= t["prefix_hit_low"]:
        title = f"Prefix caching works: {percent(rate)} of tokens hit"
        return [PREFIX.finding("prefix-cache-good", title, detail, evidence)]
    evictions = kv.EVICTIONS.value(session).value
    if evictions is None:
        detail += " Whether content was evicted is not known."
    elif evictions:
        detail += f" {count(evictions, 'eviction')} may have taken what would have been hit."
    else:
        detail += " Nothing was evicted: the prompts share no prefixes of whole blocks."
    title = f"Prefix caching finds little: {percent(rate)} of tokens hit"
    return [
        PREFIX.finding(
            "prefix-cache-low",
            title,
            detail,
            {**evidence, "evictions": None if evictions is None else int(evictions)},
        )
    ]


def _off(session: SavedSession, least: float) -> list[Finding]:
    arrived = session.metadata.events.get("request", 0)
    if not watched(session, "engine", kv.LOOK_UP) or arrived < least:
        rows_of(session, "kv_prefix_cache", ())
    rows_of(session, "kv_cache_usage", ())
    detail = (
        f"{arrived:,.0f} arrivals and ends of requests, and not one look-up. Prompts that begin "
        "alike are computed again each time. No flag is proposed: some models (encoder-decoder "
        "ones, such as Whisper) cannot have it, and which one ran is not recorded."
    )
    title = "Prefix caching is off"
    return [PREFIX.finding("prefix-cache-off", title, detail, {"lookups": 0})]


PREFIX = Rule(
    name="prefix-cache",
    area="KV cache",
    question="Does prefix caching work?",
    doc="Tokens found over tokens asked for, of requests that were not preempted before: vLLM's "
    "vllm:prefix_cache_hits_total over vllm:prefix_cache_queries_total. Off: requests came and "
    "the hook on the look-up, which was installed, saw none.",
    verdicts={
        "prefix-cache-off": When("info", "requests and not one look-up"),
        "prefix-cache-low": When("info", "hit rate below prefix_hit_low"),
        "prefix-cache-good": When("good", "hit rate of prefix_hit_low or more"),
    },
    thresholds=("prefix_hit_low", "prefix_lookups_min"),
    source=OURS,
    limits="What rate can be had is up to the prompts: MLPerf's data sets share hardly any prefix, "
    "a chat service a third. The first requests of a recording cannot hit.",
    files=("kv_prefix_cache.csv", "kv_cache_evictions.csv", "metadata.json"),
    judge=_prefix,
)


RULES = (PREEMPTIONS, PREFIX)
