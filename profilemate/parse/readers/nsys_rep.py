"""Reports of Nsight Systems (`.nsys-rep`), exported by the user's own `nsys` and kept in a cache.

The format of a report is NVIDIA's own and changes; only `nsys` reads it, and only one that is as
new as the one that recorded it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from profilemate.errors import InputError, OutputError, ToolError
from profilemate.parse.activity import ActivitySink
from profilemate.parse.readers.base import OpenOptions
from profilemate.parse.readers.nsys_layout import wanted_tables
from profilemate.parse.readers.nsys_sqlite import NsysSqliteReader
from profilemate.parse.recording import Marker, Recording, SourceInfo

MAGIC = b"NVIDIA Tegra Profiler Report "
_END = b"[END]"  # last bytes of every whole report of 2022.4 and 2023.4
_LAST_LINES = 8
# Said by 2022.4 and by 2023.4 of a report that is newer than they are.
_TOO_OLD = re.compile(r"Version number is invalid|newer than your current version")
_VERSION = re.compile(r"(\d{4})[.@](\d+)[.@](\d+)(?:[.@](\d+))?")


def default_cache_dir() -> Path:
    """Where exports are kept: `$PROFILEMATE_CACHE/exports`, or the user's cache folder."""
    own = os.environ.get("PROFILEMATE_CACHE")
    if own:
        return Path(own) / "exports"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "profilemate" / "exports"


def report_version(path: Path) -> str | None:
    """The nsys that wrote a report, from its first line; 2022.4 and older do not say."""
    with path.open("rb") as file:
        line = file.read(len(MAGIC) + 64)
    match = _VERSION.match(line[len(MAGIC) :].decode("latin-1"))
    return ".".join(filter(None, match.groups())) if match else None


def _is_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(len(_END), path.stat().st_size), os.SEEK_END)
        return file.read() == _END


@dataclass(frozen=True, slots=True)
class Nsys:
    """An `nsys` program."""

    path: Path

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [str(self.path), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as e:
            raise ToolError(
                "nsys does not start",
                path=self.path,
                why=e.strerror or str(e),
                hint="Try it by hand: nsys --version. PROFILEMATE_NSYS names another one.",
            ) from e

    def version(self) -> str:
        """Its version, `unknown` if it does not say one."""
        match = _VERSION.search(_said_once(self, "--version"))
        return ".".join(filter(None, match.groups())) if match else "unknown"

    def export(self, report: Path, target: Path) -> subprocess.CompletedProcess[str]:
        """Export what we read of a report to an sqlite file that does not exist yet."""
        arguments = ["export", "--type=sqlite", "--quiet=true", f"--output={target}"]
        if "--tables" in _said_once(self, "export", "--help"):  # not before 2023
            names = ",".join(f"^{name}$" for name in wanted_tables())
            arguments.append(f"--tables={names}")
        return self._run(*arguments, str(report))

    def says(self, *arguments: str) -> str:
        """What it prints."""
        done = self._run(*arguments)
        return done.stdout + done.stderr


@lru_cache(maxsize=16)
def _said_once(nsys: Nsys, *arguments: str) -> str:
    return nsys.says(*arguments)


def find_nsys(given: Path | None, report: Path) -> Nsys:
    """The `nsys` to use: the one given, `$PROFILEMATE_NSYS`, or the first on the PATH.

    Raises:
        ToolError: There is none.
    """
    named = given or os.environ.get("PROFILEMATE_NSYS")
    found = shutil.which(str(named or "nsys"))
    if found is not None:
        return Nsys(Path(found))
    raise ToolError(
        "An nsys report can only be read with the help of nsys, and none was found",
        path=report,
        why=f"There is no program {named}." if named else "There is no nsys on the PATH.",
        hint="Set PROFILEMATE_NSYS=/path/to/bin/nsys, or export the report where it was recorded "
        f"and open that instead: nsys export --type sqlite {report.name}",
    )


def export_report(report: Path, options: OpenOptions) -> Path:
    """The sqlite export of a report: from the cache, or made now and put there.

    Raises:
        ToolError: No nsys, one that is too old, or one that failed.
        InputError: The report was cut short.
        OutputError: The cache cannot be written.
    """
    nsys = find_nsys(options.nsys, report)
    cache = options.cache_dir or default_cache_dir()
    facts = report.stat()
    key = repr(
        (
            str(report.resolve()),
            facts.st_size,
            facts.st_mtime_ns,
            nsys.version(),
            wanted_tables(),
        )
    )
    name = f"{report.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    target = cache / f"{name}.sqlite"
    if target.exists():
        return target
    # nsys adds no suffix of its own to a name that has the right one.
    unfinished = cache / f"{name}.{os.getpid()}.part.sqlite"
    options.progress(f"exporting {report.name} with nsys {nsys.version()}", 0, None)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        done = nsys.export(report, unfinished)
        if done.returncode != 0 or not unfinished.exists():
            raise _failed(nsys, report, done)
        unfinished.replace(target)
    except OSError as e:
        raise OutputError(
            "Cannot keep the export of a report",
            path=cache,
            why=e.strerror or str(e),
            hint="Set PROFILEMATE_CACHE to a folder that you can write to.",
        ) from e
    finally:
        for rest in (unfinished, Path(f"{unfinished}-journal")):
            with suppress(OSError):
                rest.unlink()
    return target


def _failed(
    nsys: Nsys, report: Path, done: subprocess.CompletedProcess[str]
) -> ToolError | InputError:
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    said = "\n  ".join(lines[-_LAST_LINES:]) or f"exit code {done.returncode} and not a word"
    if _TOO_OLD.search(done.stderr + done.stdout):
        wrote = report_version(report) or "a newer one"
        return ToolError(
            f"nsys {nsys.version()} is older than the nsys {wrote} that wrote this report",
            path=report,
            why=f"{nsys.path} said: {said}",
            hint=f"Name a newer one: PROFILEMATE_NSYS=/path/to/bin/nsys, or export the report "
            f"where it was recorded: nsys export --type sqlite {report.name}",
        )
    if not _is_whole(report):
        return InputError(
            "This nsys report was cut short",
            path=report,
            why=f"Its end is missing: an interrupted recording, or a copy that broke off. "
            f"nsys said: {said}",
            hint="Copy it again from where it was recorded, or record again.",
        )
    return ToolError(
        f"nsys {nsys.version()} could not export this report",
        path=report,
        why=f"{nsys.path} said: {said}",
        hint=f"Try it by hand: nsys export --type sqlite {report.name}",
    )


@dataclass(frozen=True, slots=True)
class _ReportRecording:
    """A report, read through its export but speaking of itself."""

    export: Recording
    info: SourceInfo

    def markers(self) -> Iterator[Marker]:
        return self.export.markers()

    def annotations(self) -> Iterator[Marker]:
        return self.export.annotations()

    def activity(self, sink: ActivitySink) -> None:
        self.export.activity(sink)


class NsysReportReader:
    """Reads reports by way of their sqlite export."""

    name = "nsys report"
    suffixes = (".nsys-rep", ".qdrep")

    def sniff(self, path: Path) -> bool:
        """Whether it begins like a report."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC

    def open(self, path: Path, options: OpenOptions) -> Recording:
        """Export a report and open the export.

        Raises:
            ToolError: No nsys, one that is too old, or one that failed.
            InputError: The report was cut short.
            OutputError: The cache cannot be written.
        """
        recording = NsysSqliteReader().open(export_report(path, options), options)
        inner, wrote = recording.info, report_version(path)
        # Only the facts are copied: notes that come while the export is read are ours too.
        info = replace(
            inner,
            path=path,
            kind=self.name,
            size=path.stat().st_size,
            recorder=(inner.recorder or "Nsight Systems").replace(" (", f" {wrote} (", 1)
            if wrote
            else inner.recorder,
        )
        return _ReportRecording(recording, info)
