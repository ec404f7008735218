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
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from profilemate.errors import InputError, OutputError, ToolError
from profilemate.parse.readers.base import OpenOptions
from profilemate.parse.readers.nsys.layout import wanted_tables
from profilemate.parse.readers.nsys.parquet import NsysParquetReader
from profilemate.parse.readers.nsys.sqlite import NsysSqliteReader
from profilemate.parse.recording.activity import ActivitySink
from profilemate.parse.recording.contract import Marker, Recording, SourceInfo, SourceKind
from profilemate.printable import shell_word

MAGIC = b"NVIDIA Tegra Profiler Report "
_END = b"[END]"  # last bytes of every whole report of 2022.4 and 2023.4
_LAST_LINES = 8
PARQUET = "_pqtdir"  # how nsys itself names them
# Said by 2022.4 and by 2023.4 of a report that is newer than they are.
_TOO_OLD = re.compile(r"Version number is invalid|newer than your current version")
_VERSION = re.compile(r"(\d{4})[.@](\d+)[.@](\d+)(?:[.@](\d+))?")


def default_cache_dir() -> Path | None:
    """Where exports are kept: `$PROFILEMATE_CACHE/exports`, or the user's cache folder.

    None for a user without a home, as in many a container: nothing is kept then.
    """
    own = os.environ.get("PROFILEMATE_CACHE")
    if own:
        return Path(own) / "exports"
    shared = os.environ.get("XDG_CACHE_HOME")
    try:
        base = Path(shared) if shared else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "profilemate" / "exports"


@lru_cache(maxsize=1)
def _passing_folder() -> tempfile.TemporaryDirectory[str]:
    """Where exports are while this process lives, which removes it at its end."""
    return tempfile.TemporaryDirectory(prefix="profilemate-exports-")


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
                hint="PROFILEMATE_NSYS names another one. Try this one by hand:",
                command=f"{shell_word(self.path)} --version",
            ) from e

    def version(self) -> str:
        """Its version, `unknown` if it does not say one."""
        match = _VERSION.search(_said_once(self, "--version"))
        return ".".join(filter(None, match.groups())) if match else "unknown"

    def export(
        self, report: Path, target: Path, kind: str, *, every_table: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Export what we read of a report to a file or directory that does not exist yet."""
        arguments = ["export", f"--type={kind}", "--quiet=true", f"--output={target}"]
        if self.picks_tables() and not every_table:
            names = ",".join(f"^{name}$" for name in wanted_tables())
            arguments.append(f"--tables={names}")
        return self._run(*arguments, str(report))

    def picks_tables(self) -> bool:
        """Whether it exports only some tables where it is told to; not before 2023."""
        return "--tables" in _said_once(self, "export", "--help")

    def writes_parquet(self) -> bool:
        """Whether it exports to parquet files, and these can be read here; not before 2023.4."""
        known = "parquetdir" in _said_once(self, "export", "--help")
        return known and find_spec("pyarrow") is not None

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
        hint="Set PROFILEMATE_NSYS to one. Or export the report where it was recorded, and open "
        "that:",
        command=f"nsys export --type sqlite {shell_word(Path(report.name))}",
    )


class _Exports:
    """The exports of a report, from the cache or made now and put there."""

    def __init__(self, report: Path, options: OpenOptions) -> None:
        self._report, self._options = report, options
        self._nsys = find_nsys(options.nsys, report)
        kept = options.cache_dir or default_cache_dir()
        self._cache = Path(_passing_folder().name) if kept is None else kept
        facts = report.stat()
        identity = (str(report.resolve()), facts.st_size, facts.st_mtime_ns)
        key = repr((*identity, self._nsys.version(), wanted_tables()))
        self._name = f"{report.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        self._sqlite = self._cache / f"{self._name}.sqlite"

    def open(self) -> Recording:
        """Open the quickest one that can be had.

        nsys writes parquet files in five sixths of the time that an sqlite file takes it. Whatever
        is wrong with them: the sqlite file has all that they have.
        """
        if not self._sqlite.exists() and self._nsys.writes_parquet():
            parquet = self._cache / f"{self._name}{PARQUET}"
            with suppress(_UselessError, InputError):
                if not parquet.exists():
                    self._make(parquet, "parquetdir")
                return NsysParquetReader().open_checked(parquet, self._options)
            shutil.rmtree(parquet, ignore_errors=True)
        return NsysSqliteReader().open(self.sqlite(), self._options)

    def sqlite(self) -> Path:
        """The sqlite file."""
        try:
            if not self._sqlite.exists():
                self._make(self._sqlite, "sqlite")
        except _UselessError as e:
            if not self._nsys.picks_tables():
                raise _failed(self._nsys, self._report, e.done) from None
            self._make_whole()
        return self._sqlite

    def _make_whole(self) -> None:
        """Export every table."""
        try:
            self._make(self._sqlite, "sqlite", every_table=True)
        except _UselessError as e:
            raise _failed(self._nsys, self._report, e.done) from None

    def _make(self, target: Path, kind: str, *, every_table: bool = False) -> None:
        """Make an export and put it where it belongs when it is whole.

        Raises:
            ToolError: nsys does not start, or is too old for the report.
            InputError: The report was cut short.
            OutputError: The cache cannot be written.
            _UselessError: nsys failed in another way.
        """
        # nsys adds no suffix of its own to a name that has the right one.
        unfinished = (
            self._cache / f"{self._name}.{os.getpid()}.part{target.name[len(self._name) :]}"
        )
        nsys = self._nsys
        told = f"exporting {self._report.name} with nsys {nsys.version()}"
        self._options.progress(told, 0, None)
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            done = nsys.export(self._report, unfinished, kind, every_table=every_table)
            if done.returncode != 0 or not unfinished.exists():
                # Another kind of export would not help these.
                if _TOO_OLD.search(done.stderr + done.stdout) or not _is_whole(self._report):
                    raise _failed(nsys, self._report, done)
                raise _UselessError(done)
            if not (target.is_dir() and unfinished.is_dir()):  # as another process made it
                unfinished.replace(target)
        except OSError as e:
            raise OutputError(
                "Cannot keep the export of a report",
                path=self._cache,
                why=e.strerror or str(e),
                hint="Set PROFILEMATE_CACHE to a folder that you can write to.",
            ) from e
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            for rest in (unfinished, Path(f"{unfinished}-journal")):
                with suppress(OSError):
                    rest.unlink()


class _UselessError(Exception):
    """nsys made no export.

    Attributes:
        done: What it said.
    """

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__()
        self.done = done


def export_report(report: Path, options: OpenOptions) -> Path:
    """The sqlite export of a report.

    Raises:
        ToolError: No nsys, one that is too old, or one that failed.
        InputError: The report was cut short.
        OutputError: The cache cannot be written.
    """
    return _Exports(report, options).sqlite()


def _failed(
    nsys: Nsys, report: Path, done: subprocess.CompletedProcess[str]
) -> ToolError | InputError:
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    said = (
        "; ".join(line.strip() for line in lines[-_LAST_LINES:])
        or f"exit code {done.returncode} and not a word"
    )
    if _TOO_OLD.search(done.stderr + done.stdout):
        wrote = report_version(report) or "a newer one"
        return ToolError(
            f"nsys {nsys.version()} is older than the nsys {wrote} that wrote this report",
            path=report,
            why=f"{nsys.path} said: {said}",
            hint="Set PROFILEMATE_NSYS to a newer one, or export the report where it was recorded:",
            command=f"nsys export --type sqlite {shell_word(Path(report.name))}",
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
        hint="Try it by hand:",
        command=f"{shell_word(nsys.path)} export --type sqlite {shell_word(report)}",
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
    """Reads reports by way of an export."""

    name = SourceKind.NSYS_REPORT
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
        recording = _Exports(path, options).open()
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
