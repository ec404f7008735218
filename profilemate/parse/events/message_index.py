"""What is known of each message before its text is looked at: from where, when, which number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from profilemate.parse.columns.arrays import Ints


@dataclass(frozen=True, slots=True)
class Torn:
    """A long message of which a recording lacks some part.

    Attributes:
        recording: Number of its recording.
        pid: Process, as the recorder numbers it.
        ts: The recorder's time stamp of the first part that is there.
        t: When it was emitted, by CLOCK_MONOTONIC; `NONE` where the part that says so is missing.
    """

    recording: int
    pid: int
    ts: int
    t: int


@dataclass(frozen=True, slots=True)
class MessageIndex:
    """All n messages of all recordings: arrays of length n, `NONE` where one does not say.

    Attributes:
        recording: Number of its recording.
        pid: Process, as the recorder numbers it.
        ts: The recorder's time stamp, ns since the recording's zero.
        t: When it was emitted, by CLOCK_MONOTONIC, ns.
        seq: Number of the batch in its process.
        identity: Equal for equal texts.
        counters: Number of the step it tells of, of each kind of step: scheduler's, worker's.
        says_step: Whether it says the number of a step, which no other message of its text has.
    """

    recording: Ints
    pid: Ints
    ts: Ints
    t: Ints
    seq: Ints
    identity: Ints
    counters: tuple[Ints, ...]
    says_step: np.ndarray[Any, np.dtype[np.bool_]]
