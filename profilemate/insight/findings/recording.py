"""Can the recording be trusted: what was lost, what has no GPU side, which hooks did not run."""

from __future__ import annotations

from profilemate.insight.findings.base import OURS, Finding, Rule, Severity, When
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.reading import NoData, count, percent
from profilemate.parse.session.coverage import again
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.session.warnings import (
    events_lost,
    events_unknown,
    hooks_failed,
    messages_unread,
)
from profilemate.schema.hooks import GRAPH_FEEDS, KV_FEEDS, feed_of


def _lost(session: SavedSession, t: Thresholds) -> list[Finding]:
    dropped, events = session.metadata.dropped, session.metadata.events
    if dropped is None or not events:
        raise NoData("the recording holds no profilemate events")
    if dropped.lost is None or dropped.unreadable is None or dropped.unknown_events is None:
        raise NoData("metadata.json does not say all of what was lost")
    evidence = {
        "events": sum(events.values()),
        "lost_batches": dropped.lost,
        "broken_messages": dropped.unreadable,
        "unknown_events": sum(dropped.unknown_events.values()),
    }
    if dropped.lost:
        title = events_lost(dropped.lost).text
        detail = (
            "The numbers of the batches have gaps: the recorder dropped them, or its buffer was "
            "full. What is counted here is a part of what happened."
        )
        return [LOST.finding("events-lost", title, detail, evidence)]
    if dropped.unreadable or dropped.unknown_events:
        unknown = dropped.unknown_events
        told = events_unknown(unknown) if unknown else messages_unread(dropped.unreadable)
        detail = f"{evidence['events']:,} events could be read."
        return [LOST.finding("events-unread", told.text, detail, evidence)]
    title = "No event was lost"
    detail = f"{count(evidence['events'], 'event')}, and no gap in the numbers of their batches."
    return [LOST.finding("events-complete", title, detail, evidence)]


LOST = Rule(
    name="events",
    area="Recording",
    question="Is the recording complete?",
    doc="Batches of events are numbered: gaps are lost batches. Messages that break off or cannot "
    "be decoded, and kinds of events that this version does not know, are counted.",
    verdicts={
        "events-lost": When("critical", "a gap in the numbers of the batches"),
        "events-unread": When("warning", "messages that cannot be read, or unknown events"),
        "events-complete": When("good", "neither"),
    },
    thresholds=(),
    source="a lost event makes every count wrong",
    limits="What was lost before the first and after the last batch leaves no gap.",
    files=("metadata.json",),
    judge=_lost,
    per_engine=False,
)


def _gpu(session: SavedSession, t: Thresholds) -> list[Finding]:
    names = ("launches", "launches_with_gpu_records", "kernels")
    launches, matched, kernels = (session.metadata.coverage.get(name) for name in names)
    if launches is None and kernels is None:
        raise NoData("neither CUDA calls nor GPU activity were recorded")
    if not launches:
        raise NoData("no graph launch was recorded")
    evidence = {
        "launches": int(launches),
        "with_gpu_records": None if matched is None else int(matched),
        "kernels": None if kernels is None else int(kernels),
    }
    if matched is None or not matched:
        title = "Graph launches without any GPU time"
        detail = (
            f"{count(launches, 'graph launch', 'graph launches')} and no GPU record that belongs "
            f"to one: durations are the host's; {again(s.kind for s in session.metadata.sources)}."
        )
        return [GPU.finding("gpu-none", title, detail, evidence)]
    if matched < launches:
        missing = launches - matched
        title = f"{percent(missing / launches)} of the graph launches have no GPU records"
        detail = (
            f"{missing:,.0f} of {count(launches, 'graph launch', 'graph launches')}: the recorder "
            "dropped records, or the recording ended before the GPU did. GPU times are of the rest."
        )
        few = missing / launches <= t["launches_missing_share"]
        severity: Severity | None = "info" if few else None
        return [GPU.finding("gpu-records-missing", title, detail, evidence, severity=severity)]
    title = "Every graph launch has its GPU records"
    detail = f"{count(launches, 'graph launch', 'graph launches')}, all attributed."
    return [GPU.finding("gpu-complete", title, detail, evidence)]


GPU = Rule(
    name="gpu-records",
    area="Recording",
    question="Does every graph launch have its GPU time?",
    doc="Graph launches that the recorder saw, and those of them to which GPU records belong by "
    "correlation id.",
    verdicts={
        "gpu-none": When("warning", "launches, and not one with GPU records"),
        "gpu-records-missing": When(
            "warning", "some without; info up to a share of launches_missing_share"
        ),
        "gpu-complete": When("good", "none without"),
    },
    thresholds=("launches_missing_share",),
    source="attribution by correlation id: docs/definitions.md",
    limits="A launch of an empty graph has no records either. A recording that ends in the middle "
    "of the load lacks those of its last launches.",
    files=("metadata.json",),
    judge=_gpu,
    per_engine=False,
)


def _hooks(session: SavedSession, t: Thresholds) -> list[Finding]:
    said = session.metadata
    if not said.hooks:
        raise NoData("no process of the recording says anything of profilemate's hooks")
    installed, skipped, faults = said.hooks.installed, said.hooks.skipped, said.faults
    evidence = {"installed": len(installed), "skipped": len(skipped), "faults": faults}
    if faults:
        title = hooks_failed(faults).text
        detail = "What they would have recorded is missing. vLLM's log has the first of them."
        return [HOOKS.finding("hooks-failed", title, detail, evidence)]
    found = []
    watched = (
        ("CUDA graphs", said.cuda_graph_tracking, GRAPH_FEEDS),
        ("KV cache", said.kv_cache_tracking, KV_FEEDS),
    )
    for what, tracked, feeds in watched:
        if tracked:
            continue
        reasons = [why for name, why in skipped.items() if feed_of(name) in feeds]
        if reasons:
            title = f"{what}: could not be recorded"
            detail = f"{count(len(reasons), 'hook')} skipped: {reasons[0]}."
            found.append(HOOKS.finding("hooks-missing", title, detail, evidence))
        else:
            title = f"{what}: not recorded"
            detail = (
                "Its hooks were switched off, or the process in which they run was not recorded."
            )
            found.append(HOOKS.finding("hooks-off", title, detail, evidence))
    if found:
        return found
    title = f"{count(len(installed), 'hook')} installed"
    detail = "CUDA graphs and KV cache were both watched."
    if skipped:
        names = ", ".join(sorted(skipped))
        detail += f" Not in this vLLM: {names}."
    return [HOOKS.finding("hooks-installed", title, detail, evidence)]


HOOKS = Rule(
    name="hooks",
    area="Recording",
    question="Did profilemate's hooks see everything?",
    doc="What the processes said of their hooks, and the faults they counted.",
    verdicts={
        "hooks-failed": When("warning", "a hook failed while it recorded"),
        "hooks-missing": When("warning", "the hooks of CUDA graphs or KV cache found no place"),
        "hooks-off": When("info", "they are not there: switched off, or another process's"),
        "hooks-installed": When("good", "none of these"),
    },
    thresholds=(),
    source="metadata.json: hooks, processes",
    limits="A hook that is skipped because its vLLM has no such method is no fault: others of the "
    "same group stand in.",
    files=("metadata.json",),
    judge=_hooks,
    per_engine=False,
)


def _clock(session: SavedSession, t: Thresholds) -> list[Finding]:
    error = session.metadata.clock.alignment_error_ms
    if error is None or not session.metadata.events:
        raise NoData("the recording holds no events with clocks of their own")
    evidence = {"alignment_error_ms": error}
    detail = (
        f"Times of the engine and of the recorder agree within {error:.3f} ms; lifetimes and "
        "durations are differences on one clock and not touched by it."
    )
    if error > t["clock_error_ms"]:
        title = f"Engine and recorder clocks are up to {error:.1f} ms apart"
        return [CLOCK.finding("clock-apart", title, detail, evidence)]
    return [CLOCK.finding("clock-aligned", "The clocks agree", detail, evidence)]


CLOCK = Rule(
    name="clock",
    area="Recording",
    question="Are engine and GPU on one clock?",
    doc="alignment_error_ms of metadata.json: how far the best readings of the events' own clock "
    "against the recorder's differ.",
    verdicts={
        "clock-apart": When("warning", "more than clock_error_ms"),
        "clock-aligned": When("good", "clock_error_ms or less"),
    },
    thresholds=("clock_error_ms",),
    source=OURS,
    limits="It is a bound: most events are closer.",
    files=("metadata.json",),
    judge=_clock,
    per_engine=False,
)

RULES = (LOST, GPU, HOOKS, CLOCK)
