"""The reader of reports, with a stand-in for nsys; the real one is in `test_readers_real.py`.

What the stand-in prints is what the real 2022.4 and 2023.4 print.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from build import Export, Row
from parquet_build import convert

from profilemate.errors import InputError, OutputError, ToolError
from profilemate.parse.readers import OpenOptions, open_recording
from profilemate.parse.readers.nsys import report as nsys_rep

NEW = b"NVIDIA Tegra Profiler Report 2023@4@4@54-234433681190v0\x0a\x0brest U3w[END]"
OLD = b"NVIDIA Tegra Profiler Report 1.\x0a\x0brest U3w[END]"
REFUSALS = {
    "2022.4": "Exportation error: Version number is invalid: 2023@4@4@54-234433681190v0",
    "2023.4": "Exportation error: Report was created in Nsight Systems version (2023.4.4.54-"
    "234433681190v0), newer than your current version (2023.1.2.3-4).\nPlease update your Nsight "
    "Systems to the latest version to view this report.",
}

STAND_IN = """\
import pathlib, shutil, sys
folder = pathlib.Path(__file__).parent
with open(folder / "calls", "a") as file:
    print(*sys.argv[1:], file=file)
if sys.argv[1:] == ["--version"]:
    print("NVIDIA Nsight Systems version {version}-df9881f")
elif sys.argv[1:] == ["export", "--help"]:
    print("usage: nsys export [<args>] [nsys-rep-file]", "{options}")
elif {error!r}:
    sys.exit({error!r})
elif any(word in " ".join(sys.argv) for word in {fails!r}):
    sys.exit("Exportation error: this one cannot do that")
else:
    target = next(a for a in sys.argv if a.startswith("--output=")).removeprefix("--output=")
    if "--type=parquetdir" in sys.argv:
        shutil.copytree(folder / "export_pqtdir", target)
    else:
        shutil.copy(folder / "export.sqlite", target)
"""


@dataclass(frozen=True)
class StandIn:
    """A program that behaves like nsys."""

    path: Path

    def calls(self) -> list[str]:
        return (self.path.parent / "calls").read_text().splitlines()

    def exports(self) -> list[str]:
        return [c for c in self.calls() if c.startswith("export --type")]


def stand_in(
    folder: Path,
    *,
    version: str = "2023.4.4.54",
    options: str = "--tables=",
    error: str = "",
    fails: Sequence[str] = (),
) -> StandIn:
    folder.mkdir()
    Export([Row(5, "pm1.preempt req=a")]).write(folder / "export.sqlite")
    code = folder / "nsys.py"
    told = STAND_IN.format(version=version, options=options, error=error, fails=tuple(fails))
    code.write_text(told)
    path = folder / "nsys"
    path.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(code))} "$@"\n'
    )
    path.chmod(0o755)
    return StandIn(path)


@pytest.fixture(autouse=True)
def _no_nsys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No nsys of the machine's, and a cache of the test's own."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PROFILEMATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PROFILEMATE_NSYS", raising=False)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "out.nsys-rep"
    path.parent.mkdir()
    path.write_bytes(NEW)
    return path


def test_a_report_is_exported_and_read(tmp_path: Path, report: Path) -> None:
    nsys = stand_in(tmp_path / "bin")
    recording = open_recording(report, nsys=nsys.path)
    assert [m.text for m in recording.markers()] == ["pm1.preempt req=a"]
    info = recording.info
    assert (info.kind, info.path, info.size) == ("nsys report", report, len(NEW))
    assert info.recorder == "Nsight Systems 2023.4.4.54 (exported by 2023.4.4, schema 3.0.0)"
    assert [p.name for p in report.parent.iterdir()] == ["out.nsys-rep"]


def test_an_old_report_does_not_say_who_wrote_it(tmp_path: Path, report: Path) -> None:
    report.write_bytes(OLD)
    info = open_recording(report, nsys=stand_in(tmp_path / "bin").path).info
    assert info.recorder == "Nsight Systems (exported by 2023.4.4, schema 3.0.0)"


def test_what_a_reader_notes_while_it_reads_is_seen(tmp_path: Path, report: Path) -> None:
    nsys = stand_in(tmp_path / "bin")
    Export([Row(5, "other")]).write(nsys.path.parent / "other.sqlite").replace(
        nsys.path.parent / "export.sqlite"
    )
    recording = open_recording(report, nsys=nsys.path)
    assert list(recording.markers()) == []
    assert "No messages of profilemate" in recording.info.notes[0]


def test_only_the_tables_that_are_read_where_nsys_can(tmp_path: Path, report: Path) -> None:
    nsys = stand_in(tmp_path / "bin")
    open_recording(report, nsys=nsys.path)
    (call,) = nsys.exports()
    for table in ("^NVTX_EVENTS$", "^StringIds$", "^CUPTI_ACTIVITY_KIND_GRAPH_TRACE$"):
        assert table in call
    assert "ENVIRONMENT" not in call
    assert "SYSTEM_ENV" not in call


def test_an_nsys_without_the_option_exports_everything(tmp_path: Path, report: Path) -> None:
    nsys = stand_in(tmp_path / "bin", options="--separate-strings=")
    open_recording(report, nsys=nsys.path)
    (call,) = nsys.exports()
    assert "--tables" not in call


NEWER = "--tables= sqlite, arrowdir, and parquetdir."


@pytest.fixture
def with_parquet(tmp_path: Path) -> Callable[..., StandIn]:
    """Makes an nsys that writes both kinds of exports; their content differs to tell them apart."""

    def make(name: str = "bin", **how: Any) -> StandIn:
        nsys = stand_in(tmp_path / name, options=NEWER, **how)
        source = Export([Row(5, "pm1.preempt req=b")]).write(tmp_path / f"{name}.sqlite")
        convert(source, nsys.path.parent / "export_pqtdir")
        return nsys

    return make


def texts(report: Path, nsys: StandIn) -> list[str]:
    return [m.text for m in open_recording(report, nsys=nsys.path).markers()]


def test_parquet_files_where_nsys_writes_them(
    tmp_path: Path, report: Path, with_parquet: Callable[..., StandIn]
) -> None:
    nsys = with_parquet()
    for _ in range(2):
        assert texts(report, nsys) == ["pm1.preempt req=b"]
    (call,) = nsys.exports()
    assert "--type=parquetdir" in call
    assert "^NVTX_EVENTS$" in call
    info = open_recording(report, nsys=nsys.path).info
    assert (info.kind, info.path, info.size) == ("nsys report", report, len(NEW))
    assert [p.suffix for p in (tmp_path / "cache" / "exports").iterdir()] == [""]


def test_without_pyarrow_it_is_sqlite(
    report: Path, with_parquet: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    nsys = with_parquet()
    monkeypatch.setattr(nsys_rep, "find_spec", lambda name: None)
    assert texts(report, nsys) == ["pm1.preempt req=a"]
    monkeypatch.undo()
    assert len(nsys.exports()) == 1


def test_where_parquet_files_fail_it_is_sqlite(
    tmp_path: Path, report: Path, with_parquet: Callable[..., StandIn]
) -> None:
    nsys = with_parquet(fails=["parquetdir"])
    for _ in range(2):
        assert texts(report, nsys) == ["pm1.preempt req=a"]
    # Nor is it tried once more.
    assert ["parquetdir" in call for call in nsys.exports()] == [True, False]
    (export,) = (tmp_path / "cache" / "exports").iterdir()
    assert export.suffix == ".sqlite"


@pytest.mark.parametrize("wrong", ["cut short", "no table", "empty", "text", "gone"])
def test_parquet_files_that_are_no_good(
    tmp_path: Path, report: Path, with_parquet: Callable[..., StandIn], wrong: str
) -> None:
    nsys = with_parquet()
    made = nsys.path.parent / "export_pqtdir"
    if wrong == "gone":  # damaged after it was put into the cache
        assert texts(report, nsys) == ["pm1.preempt req=b"]
        (made,) = (tmp_path / "cache" / "exports").iterdir()
    events = made / "NVTX_EVENTS.parquet"
    if wrong in ("cut short", "gone"):
        events.write_bytes(events.read_bytes()[:-9])
    elif wrong == "empty":
        events.write_bytes(b"")
    elif wrong == "no table":
        for path in made.iterdir():
            path.unlink()
    else:
        table = pq.read_table(events)
        number = table.schema.get_field_index("start")
        cast = table.column("start").cast("string")
        pq.write_table(table.set_column(number, "start", cast), events)
    assert texts(report, nsys) == ["pm1.preempt req=a"]
    (export,) = (tmp_path / "cache" / "exports").iterdir()
    assert export.suffix == ".sqlite"


def test_an_sqlite_export_that_is_there_is_used(
    report: Path, with_parquet: Callable[..., StandIn]
) -> None:
    nsys = with_parquet()
    path = nsys_rep.export_report(report, OpenOptions(nsys=nsys.path))
    assert path.suffix == ".sqlite"
    assert texts(report, nsys) == ["pm1.preempt req=a"]
    assert len(nsys.exports()) == 1


def test_where_some_tables_fail_it_is_all(report: Path, tmp_path: Path) -> None:
    nsys = stand_in(tmp_path / "bin", fails=["--tables"])
    assert texts(report, nsys) == ["pm1.preempt req=a"]
    assert ["--tables" in call for call in nsys.exports()] == [True, False]


def test_an_export_is_made_once_for_a_report_as_it_is(tmp_path: Path, report: Path) -> None:
    nsys = stand_in(tmp_path / "bin")
    for _ in range(2):
        assert len(list(open_recording(report, nsys=nsys.path).markers())) == 1
    assert len(nsys.exports()) == 1
    assert nsys.calls().count("export --help") == 1
    assert nsys.calls().count("--version") == 1
    (export,) = (tmp_path / "cache" / "exports").iterdir()
    assert export.name.startswith("out-")
    os.utime(report, ns=(1, 1))
    open_recording(report, nsys=nsys.path)
    report.write_bytes(NEW + b"more U3w[END]")
    open_recording(report, nsys=nsys.path)
    other = stand_in(tmp_path / "newer", version="2024.1.1.1")
    open_recording(report, nsys=other.path)
    assert len(nsys.exports()) == 3
    assert len(other.exports()) == 1


def test_where_exports_are_kept(
    tmp_path: Path, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nsys = stand_in(tmp_path / "bin")
    open_recording(report, nsys=nsys.path, cache_dir=tmp_path / "given")
    assert len(list((tmp_path / "given").iterdir())) == 1
    monkeypatch.delenv("PROFILEMATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert nsys_rep.default_cache_dir() == tmp_path / "xdg" / "profilemate" / "exports"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    home = tmp_path / "home" / ".cache" / "profilemate" / "exports"
    assert nsys_rep.default_cache_dir() == home


def test_which_nsys(tmp_path: Path, report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path, named, given = (
        stand_in(tmp_path / n, version=f"2023.{i}.1.1")
        for i, n in enumerate(("on_path", "named", "given"))
    )
    monkeypatch.setenv("PATH", f"{on_path.path.parent}:/usr/bin:/bin")
    open_recording(report)
    monkeypatch.setenv("PROFILEMATE_NSYS", str(named.path))
    open_recording(report)
    open_recording(report, nsys=given.path)
    assert [len(n.exports()) for n in (on_path, named, given)] == [1, 1, 1]


def test_no_nsys(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolError) as caught:
        open_recording(report)
    error = caught.value
    assert error.what == (
        "An nsys report can only be read with the help of nsys, and none was found"
    )
    assert error.why == "There is no nsys on the PATH."
    assert "PROFILEMATE_NSYS" in error.hint
    assert error.commands == ("nsys export --type sqlite out.nsys-rep",)
    monkeypatch.setenv("PROFILEMATE_NSYS", "/no/such/nsys")
    with pytest.raises(ToolError, match=r"There is no program /no/such/nsys\."):
        open_recording(report)


@pytest.mark.parametrize("release", sorted(REFUSALS))
def test_an_nsys_older_than_the_report(tmp_path: Path, report: Path, release: str) -> None:
    nsys = stand_in(tmp_path / "bin", version="2022.4.2.1", error=REFUSALS[release])
    with pytest.raises(ToolError) as caught:
        open_recording(report, nsys=nsys.path)
    assert caught.value.what == (
        "nsys 2022.4.2.1 is older than the nsys 2023.4.4.54 that wrote this report"
    )
    assert REFUSALS[release].splitlines()[0] in caught.value.why
    assert "PROFILEMATE_NSYS" in caught.value.hint
    assert list((tmp_path / "cache" / "exports").iterdir()) == []


def test_a_report_that_was_cut_short(tmp_path: Path, report: Path) -> None:
    report.write_bytes(NEW[:-6])
    said = "Exportation error: Section Table Reference magic number mismatch."
    with pytest.raises(InputError) as caught:
        open_recording(report, nsys=stand_in(tmp_path / "bin", error=said).path)
    assert caught.value.what == "This nsys report was cut short"
    assert caught.value.path == str(report)
    assert said in caught.value.why


def test_any_other_failure_shows_the_last_lines(tmp_path: Path, report: Path) -> None:
    said = "\n".join(f"line {i}" for i in range(20))
    nsys = stand_in(tmp_path / "bin", error=said)
    with pytest.raises(ToolError) as caught:
        open_recording(report, nsys=nsys.path)
    error = caught.value
    assert error.what == "nsys 2023.4.4.54 could not export this report"
    assert "line 12" in error.why
    assert "line 11" not in error.why
    assert error.commands == (f"{nsys.path} export --type sqlite {report}",)


def test_a_program_that_is_no_nsys(tmp_path: Path, report: Path) -> None:
    with pytest.raises(ToolError, match="nsys unknown could not export") as caught:
        open_recording(report, nsys="/bin/false")
    assert "exit code 1 and not a word" in caught.value.why
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF and nothing else")
    broken.chmod(0o755)
    with pytest.raises(ToolError, match="nsys does not start"):
        open_recording(report, nsys=broken)
    with pytest.raises(ToolError, match="could not export"):
        open_recording(report, nsys="/bin/true")  # success, and no file


def test_a_cache_that_cannot_be_written(tmp_path: Path, report: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError) as caught:
        open_recording(
            report, nsys=stand_in(tmp_path / "bin").path, cache_dir=tmp_path / "file" / "cache"
        )
    assert caught.value.hint == "Set PROFILEMATE_CACHE to a folder that you can write to."


def test_progress_names_the_report_and_nsys(tmp_path: Path, report: Path) -> None:
    seen: list[str] = []
    open_recording(
        report,
        nsys=stand_in(tmp_path / "bin").path,
        progress=lambda what, done, total: seen.append(what),
    )
    assert seen[0] == "exporting out.nsys-rep with nsys 2023.4.4.54"
