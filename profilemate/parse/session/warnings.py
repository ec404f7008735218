"""What whoever reads the figures must know: each warning is worded here, and only shown elsewhere.

Parsing makes them and stores them in metadata.json; of a session that an older profilemate wrote
they are made from the facts that it stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from profilemate.parse.session.metadata_parts import Clock, Dropped
from profilemate.parse.tables.invariants import INVARIANTS

LARGE_MS = 1.0
"""Recordings whose clocks differ by more than this are not on one clock."""

COUNTS = ("events-lost", "messages-unread", "events-unknown", "hooks-failed")
"""Warnings by which counts may be too low."""

CLOCKS = ("clock-apart", "steps-early")
"""Warnings by which times of one process cannot be compared with those of another."""

IDS = {
    "note": "a sentence of a reader: what was dropped, clipped or guessed",
    "doubt": "GPU work that could not be attributed, as an older profilemate put it",
    "gpu-not-recorded": "graph launches, and no GPU activity at all",
    "gpu-not-attributed": "graph launches, and none with GPU records",
    "gpu-records-missing": "graph launches without GPU records beside others with them",
    "gpu-records-alone": "GPU records of graphs without their launch",
    "calls-not-traced": "GPU records and no API calls",
    "graphs-whole": "graphs were recorded as a whole: their kernels are in no count",
    "launches-missing": "fewer graph launches than the steps counted",
    "several-pools": "a process with several block pools on the GPU",
    "clock-apart": "a recording whose clock differs from the others' by more than 1 ms",
    "steps-early": "model steps that seem to begin before they were scheduled",
    "events-lost": "batches of events are missing",
    "messages-unread": "messages that could not be read",
    "events-unknown": "events of a newer profilemate",
    "hooks-failed": "profilemate's own hooks failed",
    "timeline": "what is not on timeline.pftrace",
    "columns-missing": "a table that lacks columns of today",
    "metadata-unread": "something of metadata.json that could not be used",
    **{name: invariant.doc for name, invariant in INVARIANTS.items()},
}
"""What each `id` stands for."""


@dataclass(frozen=True, slots=True)
class SessionWarning:
    """One warning: what it is about, a key of `IDS` (or of another version's), and a sentence."""

    id: str
    text: str


def warnings_of(
    notes: Iterable[str],
    doubts: Iterable[SessionWarning | str],
    clock: Clock,
    dropped: Dropped | None,
    faults: int,
) -> tuple[SessionWarning, ...]:
    """Every warning of a session, each sentence once.

    Args:
        notes: What readers say of the recordings.
        doubts: What could not be attributed; of a session that was read back, only the sentences.
        clock: How the recordings were laid on one clock.
        dropped: What is in no table; None where it is not known.
        faults: How often profilemate's own hooks failed.
    """
    told = [SessionWarning("note", text) for text in notes]
    told += [SessionWarning("doubt", d) if isinstance(d, str) else d for d in doubts]
    found = list({warning.text: warning for warning in told}.values())
    found += _clock(clock)
    found += [] if dropped is None else _dropped(dropped)
    found += [hooks_failed(faults)] if faults else []
    return tuple(found)


def of_kinds(warnings: Iterable[SessionWarning], ids: Sequence[str]) -> list[str]:
    """The sentences of the warnings with these ids."""
    return [warning.text for warning in warnings if warning.id in ids]


def _clock(clock: Clock) -> list[SessionWarning]:
    """What is doubtful about times that come from different recordings."""
    found = [
        SessionWarning(
            "clock-apart",
            f"the clock of {placed.name} differs by up to {placed.error_ms:.3f} ms "
            "from the others': compare its times with theirs no closer than that",
        )
        for placed in clock.recordings
        if placed.error_ms is not None and placed.error_ms > LARGE_MS
    ]
    steps = clock.steps
    if steps is not None and steps.early:
        least = steps.distance_ms.get("min")
        by = "" if least is None else f", by up to {-least:.3f} ms"
        compared = "the" if steps.compared is None else steps.compared
        found.append(
            SessionWarning(
                "steps-early",
                f"{steps.early} of {compared} model steps seem to begin before they were "
                f"scheduled{by}: the clocks of scheduler and worker differ by at least that",
            )
        )
    return found


def _dropped(dropped: Dropped) -> list[SessionWarning]:
    found = []
    if dropped.lost:
        found.append(events_lost(dropped.lost))
    if dropped.unreadable:
        found.append(messages_unread(dropped.unreadable))
    if dropped.unknown_events:
        found.append(events_unknown(dropped.unknown_events))
    return found


def events_lost(batches: int) -> SessionWarning:
    """Numbers of batches have gaps."""
    are = "batch of events is" if batches == 1 else "batches of events are"
    text = f"{batches:,} {are} missing from the recording: counts are too low"
    return SessionWarning("events-lost", text)


def messages_unread(messages: int) -> SessionWarning:
    """Messages broke off, or cannot be decoded."""
    one = messages == 1
    are = "message could not be read and is" if one else "messages could not be read and are"
    return SessionWarning("messages-unread", f"{messages:,} {are} left out")


def events_unknown(kinds: Iterable[str]) -> SessionWarning:
    """Events of kinds that this version does not know."""
    names = ", ".join(kinds)
    return SessionWarning("events-unknown", f"Events of a newer profilemate are left out: {names}")


def hooks_failed(faults: int) -> SessionWarning:
    """What the guard of the hooks counted."""
    times = "once" if faults == 1 else f"{faults:,} times"
    text = f"profilemate's own hooks failed {times}: please report vLLM's log"
    return SessionWarning("hooks-failed", text)
