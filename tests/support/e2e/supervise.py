"""Start a command, alone or under ``nsys``, in a bare environment, and leave nothing of it behind.

Nothing in here knows vLLM; ``engine.py`` beside it does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# What a process needs from its surroundings and nothing more: a recording carries the environment
# of what it recorded, and a PROFILEMATE or VLLM_ variable of the caller's shell must not decide
# what a test sees. The prefixes are the math libraries' knobs, which a processor may need.
KEPT_VARIABLES = ("PATH", "LANG", "LD_LIBRARY_PATH")
KEPT_PREFIXES = ("OMP_", "OPENBLAS_", "MKL_", "KMP_")


class EngineError(RuntimeError):
    """The engine or the recorder did not do what was asked; the text carries the log's end."""


@dataclass(frozen=True)
class Process:
    """One row of /proc; ``started`` tells a process from a later one with the same number."""

    pid: int
    started: int
    parent: int
    session: int
    arguments: tuple[str, ...]
    marked: bool


def _processes(mark: str) -> Iterator[Process]:
    """Yield every living process; ``marked`` if its environment holds ``mark``."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # A process may end between listing and reading; then it is not of interest any more.
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The command name stands in parentheses and may itself hold spaces and parentheses.
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            marked = False
            with contextlib.suppress(PermissionError):
                marked = mark.encode() in (entry / "environ").read_bytes().split(b"\0")
            if fields[0] != "Z":
                yield Process(
                    pid=int(entry.name),
                    started=int(fields[19]),
                    parent=int(fields[1]),
                    session=int(fields[3]),
                    arguments=tuple(arguments),
                    marked=marked,
                )


class Run:
    """One started command and all that it starts in turn, in a bare environment of its own.

    ``end`` leaves nothing behind. Three signs together tell what is ours: descent (lost when a
    parent ends first), the session (lost by nsys's agent, which opens its own), and a temporary
    folder that no other process has in its environment (lost by vLLM's children, which overwrite
    theirs to show a title).
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        workdir: Path,
        log: Path,
        nsys: Path | None = None,
        env: Mapping[str, str] | None = None,
        pythonpath: Sequence[Path] = (),
    ) -> None:
        self.log = log
        self.report = workdir / "recording.nsys-rep" if nsys else None
        self._seen: dict[tuple[int, int], Process] = {}
        # Short on purpose: vLLM puts sockets there, and a socket's path has about 100 bytes.
        self._scratch = Path(tempfile.mkdtemp(prefix="pm-"))
        self._mark = f"TMPDIR={self._scratch}"
        workdir.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*_nsys_prefix(nsys, self.report), *command],
                cwd=workdir,
                env=self._environment(env or {}, pythonpath),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _environment(self, extra: Mapping[str, str], path: Sequence[Path]) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES)
        }
        own = {"HOME": str(self._scratch), "TMPDIR": str(self._scratch)}
        if path:
            own["PYTHONPATH"] = os.pathsep.join(str(entry) for entry in path)
        return {**kept, **own, **extra}

    def members(self) -> list[Process]:
        """Return what is alive of this run, and remember it."""
        everything = list(_processes(self._mark))
        wanted = {self.process.pid} | {p.pid for p in everything if p.marked}
        wanted |= {p.pid for p in everything if (p.pid, p.started) in self._seen}
        while True:
            more = {p.pid for p in everything if p.parent in wanted or p.session in wanted}
            if more <= wanted:
                break
            wanted |= more
        alive = [p for p in everything if p.pid in wanted]
        self._seen.update({(p.pid, p.started): p for p in alive})
        return alive

    def wait(self, timeout: float, what: str) -> None:
        """Wait for the command's end and, under nsys, make sure that it left its report."""
        self.members()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise EngineError(f"{what} took more than {timeout:.0f} s.{self.tail()}") from None
        if self.report and not self.report.is_file():
            raise EngineError(f"nsys left no {self.report.name} after {what}.{self.tail()}")

    def end(self) -> None:
        """Kill whatever is still there, by its number, and remove the temporary folder."""
        deadline = time.monotonic() + 10
        while (left := self.members()) and time.monotonic() < deadline:
            if self.process.poll() is None:
                break
            time.sleep(0.1)
        for member in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
        self.process.wait(10)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def tail(self, length: int = 6000) -> str:
        """Return the end of the log, introduced by its name, for an error's text."""
        return f"\nThe end of {self.log}:\n{self.log.read_text(errors='replace')[-length:]}"


def _nsys_prefix(nsys: Path | None, report: Path | None) -> list[str]:
    """Return the command that has ``nsys`` record what follows; nothing without nsys.

    No sampling and no context switches: they need rights that a container may lack. vLLM's
    processes are followed, forked or spawned, without ``--trace-fork-before-exec``.
    """
    if nsys is None or report is None:
        return []
    quiet = ["-s", "none", "--cpuctxsw=none", "--force-overwrite=true"]
    return [str(nsys), "profile", "-t", "nvtx", *quiet, "-o", str(report.with_suffix(""))]
