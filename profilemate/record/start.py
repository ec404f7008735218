"""Run a planned recording to its end, whatever ends it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from profilemate.errors import OutputError, ToolError
from profilemate.record.plan import Plan
from profilemate.schema.live import LOCK

# Says which process the recorded command is, and becomes it.
_ANNOUNCE = ("/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"')

_ENDED = (signal.SIGINT, signal.SIGTERM)


class _Running:
    """The recorder, the recorded command behind it, and the signals they were given."""

    def __init__(self, plan: Plan, note: Path) -> None:
        self._note = note
        self.sent: set[int] = set()
        try:
            self.process = subprocess.Popen(
                [*plan.prefix, *_ANNOUNCE, str(note), *plan.command],
                env={**os.environ, **plan.env},
                # A terminal's Ctrl-C goes to us alone: nsys would end the recording at once and
                # cut off vLLM's own ending.
                start_new_session=True,
            )
        except OSError as e:
            raise ToolError(
                "The recording does not start", path=(plan.prefix or plan.command)[0], why=str(e)
            ) from e

    def forward(self, number: int, _frame: FrameType | None) -> None:
        """Hand a signal on: to the recorded command, or, when that is gone, to the recorder."""
        self.sent.add(number)
        with suppress(OSError, ValueError):
            os.kill(int(self._note.read_text()), number)
            return
        with suppress(OSError):
            self.process.send_signal(number)


def run(plan: Plan, say: Callable[[str], None]) -> int:
    """Start what was planned and wait for its end; SIGINT and SIGTERM are handed on.

    Returns:
        The command's exit code; 0 where it was ended by a signal that went through us.

    Raises:
        OutputError: The folder cannot be made.
        ToolError: The recorder does not start, or left no recording.
    """
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(
            "The folder for the recording cannot be made",
            path=plan.folder,
            why=e.strerror or str(e),
            hint="Name another one with -o",
        ) from e
    with tempfile.TemporaryDirectory(prefix="profilemate-") as scratch:
        running = _Running(plan, Path(scratch) / "pid")
        before = {number: signal.signal(number, running.forward) for number in _ENDED}
        try:
            code = running.process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if code and _is_end(code, running.sent):
        say(f"ended by {', '.join(signal.Signals(n).name for n in sorted(running.sent))}")
        return 0
    return code if code >= 0 else 128 - code


def settle(session: Path) -> None:
    """Wait until the process that writes a live session's tables at its end, if any, is done."""
    with suppress(OSError), (session / LOCK).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_end(code: int, sent: set[int]) -> bool:
    """Whether a command that was sent these signals ended because of them.

    vLLM's server ends with 0 on SIGINT, with 143 or by the signal itself on SIGTERM; nsys hands the
    code of its command on.
    """
    codes = {c for number in sent for c in (-number, 128 + number)}
    return code in codes
