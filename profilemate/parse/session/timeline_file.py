"""From a trace to a `.pftrace` file: the one place that knows the timeline and its writer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pandas as pd

from profilemate.errors import InputError
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.timeline.build import timeline
from profilemate.parse.timeline.scope import Scope
from profilemate.parse.timeline.tracks import Batch
from profilemate.parse.trace.trace import Trace
from profilemate.parse.writers.one_file import may_write, replaced_file
from profilemate.parse.writers.perfetto import BROWSER_BYTES, Perfetto, Written, builder

FILE = "timeline.pftrace"
"""Its name in a session directory."""

_WINDOW = re.compile(r"(\d*\.?\d*):(\d*\.?\d*)")
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be on the timeline.

    Attributes:
        kernels: GPU records one by one.
        window: First and last second to show, since the start of the recording; None for all.
    """

    kernels: bool = False
    window: tuple[float | None, float | None] = (None, None)


@dataclass(slots=True)
class Result:
    """A timeline that was written.

    Attributes:
        written: The file and what is in it.
        outside: Events that the window left out, by track.
        warnings: What whoever opens it must know.
    """

    written: Written
    outside: Mapping[str, int]
    warnings: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """What a session's metadata.json says of it."""
        tracks = {
            name: {k: v for k, v in count.as_dict().items() if v}
            for name, count in self.written.tracks.items()
        }
        return {
            "file": self.written.path.name,
            "size": self.written.size,
            "outside_window": dict(self.outside),
            "tracks": tracks,
        }


def window_of(text: str | None) -> tuple[float | None, float | None]:
    """Read `A:B`, seconds since the start of the recording; either may be left out.

    Raises:
        InputError: It is something else.
    """
    found = _WINDOW.fullmatch(text or ":")
    try:
        if found is None:
            raise ValueError(text)
        first, last = (float(t) if t else None for t in found.groups())
        if first is not None and last is not None and first >= last:
            raise ValueError(text)
    except ValueError as e:
        raise InputError(
            f"{text!r} is no window",
            why="A window is two numbers of seconds since the start of the recording, the smaller "
            "one first.",
            hint="For instance: --window 12.5:20, or --window 12.5: for all from there on",
        ) from e
    return first, last


def write_timeline(
    trace: Trace,
    out: Path,
    options: Options,
    *,
    force: bool = False,
    progress: Progress = no_progress,
) -> Result:
    """Write the timeline of a trace.

    Raises:
        InputError: The window shows nothing of the recording.
        OutputError: The file exists, or cannot be written.
        ToolError: The package perfetto is not installed.
    """
    builder()
    scope = Scope(trace, _window(trace, options), options.kernels)
    with replaced_file(out, force=force) as file:
        written = _write(scope, file, out, progress)
    return Result(written, +scope.outside, _warnings(written, outside=scope.outside.total()))


def check(out: Path, *, force: bool) -> None:
    """Refuse what `write_timeline` would refuse, before a recording is read for it.

    Raises:
        OutputError: The file exists.
        ToolError: The package perfetto is not installed.
    """
    builder()
    may_write(out, force=force)


def _write(scope: Scope, file: IO[bytes], out: Path, progress: Progress) -> Written:
    def watched() -> Iterator[Batch]:
        for done, batch in enumerate(timeline(scope)):
            progress("writing the timeline", done, None)
            yield batch

    trace = scope.trace
    return Perfetto(file, out).write(watched(), trace.start_unix_ns, _shift(trace))


def _shift(trace: Trace) -> int:
    """What makes every time positive: an event may have begun before the recording did."""
    times = [frame["ts"] for frame in trace.frames.values()]
    times += [trace.launches["ts"], pd.Series(trace.work.rows["start"])]
    first = [int(t.min()) for t in times if len(t)]
    first += [int(part.ints("ts").min()) for part in trace.kv.slices(("ts",))]
    return max(0, -min(first, default=0))


def _window(trace: Trace, options: Options) -> tuple[int, int] | None:
    if options.window == (None, None):
        return None
    begin, end = trace.window
    first = begin if options.window[0] is None else round(options.window[0] * _NS)
    last = end if options.window[1] is None else round(options.window[1] * _NS)
    if first > end or last < begin:
        raise InputError(
            "The window shows nothing of the recording",
            why=f"It was recorded from {begin / _NS:.3f} to {end / _NS:.3f} s.",
            hint=f"For instance: --window {begin / _NS:.3f}:{end / _NS:.3f}",
        )
    return first, last


def _warnings(written: Written, *, outside: int) -> list[str]:
    found = []
    if not written.events and not outside:
        found.append("the recording holds nothing that a timeline could show")
    if written.size > BROWSER_BYTES:
        found.append(
            f"the file has {written.size / 1e6:.0f} MB: Perfetto takes about 7 times that in "
            "memory, and a browser typically gives it 2 GB. Cut it with --window A:B, leave "
            "--kernels out, or open it through Perfetto's own trace_processor --httpd"
        )
    return found
