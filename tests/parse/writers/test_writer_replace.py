"""Replacing a session directory: whole or not at all, and nobody ever loses a file to it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from frames import At, at, trace_of

from profilemate.errors import OutputError
from profilemate.parse.tables import TABLES
from profilemate.parse.writers import CsvSession, csv_session, leftovers
from profilemate.parse.writers.replace import replaced_directory

FULL: dict[str, Any] = {"mode": "FULL", "num_tokens": 256}
EVENTS = [
    at(0, "kv.pool", pool=0, num_blocks=8),
    at(1, "graph.replay", **FULL, step=1),
    at(2, "kv.alloc", pool=0, used=1, ids=(1,)),
]


def tables(events: list[At]) -> dict[str, pd.DataFrame]:
    trace = trace_of(events)
    return {name: table.build(trace) for name, table in TABLES.items()}


def write(out: Path, events: list[At] | None = None, *, force: bool = False, **kwargs: Any) -> Path:
    frames = tables(EVENTS if events is None else events)
    return CsvSession(out, TABLES, force=force).write(frames, {"session_id": "x"}, **kwargs)


def tree(directory: Path) -> dict[str, bytes]:
    paths = [p for p in directory.rglob("*") if p.is_file() and not p.is_symlink()]
    return {str(p.relative_to(directory)): p.read_bytes() for p in paths}


def test_an_existing_directory_needs_force(tmp_path: Path) -> None:
    out = write(tmp_path / "session")
    before = tree(out)
    with pytest.raises(OutputError, match="will not overwrite"):
        CsvSession(out, TABLES, force=False).check()
    CsvSession(out, TABLES, force=True).check()
    CsvSession(tmp_path / "other", TABLES, force=False).check()
    with pytest.raises(OutputError) as refused:
        write(out, [])
    assert str(refused.value) == (
        f"will not overwrite without --force: {out}\n"
        "  the directory exists\n"
        "  choose another directory with -o, or add --force"
    )
    assert tree(out) == before
    write(out, [], force=True)
    assert tree(out) != before
    assert os.listdir(tmp_path) == ["session"]


def test_an_empty_directory_is_filled_with_force(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputError, match="will not overwrite"):
        write(tmp_path / "empty")
    assert tree(write(tmp_path / "empty", force=True))


@pytest.mark.parametrize("content", [None, b"[]", b"\xff", b'{"name": "my project"}'])
def test_a_directory_that_is_no_session_is_never_replaced(
    tmp_path: Path, content: bytes | None
) -> None:
    out = tmp_path / "project"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    if content is not None:
        (out / "metadata.json").write_bytes(content)
    before = tree(out)
    with pytest.raises(OutputError, match="not even with --force") as refused:
        write(out, force=True)
    assert "not a session of profilemate" in refused.value.why
    assert tree(out) == before
    assert os.listdir(tmp_path) == ["project"]


FOREIGN = {
    "usage.png": b"a plot",
    "kv_cache_usage.csv.bak": b"a copy",
    "notes/monday/a.txt": b"notes",
    "ranks/readme.txt": b"beside ours",
    "ranks/dp0_pp0_tp1/mine.txt": b"among ours",
    "ranks/mine/kv_cache_usage.csv": b"a name of ours, a place of theirs",
}


def session_with_foreign_files(tmp_path: Path) -> Path:
    out = write(tmp_path / "session", ranks={"dp0_pp0_tp1": tables([])})
    for name, content in FOREIGN.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    (out / "recording").symlink_to("../elsewhere.nsys-rep")  # dangling
    (out / "later").mkdir()
    return out


def test_files_that_are_not_ours_are_carried_over(tmp_path: Path) -> None:
    out = session_with_foreign_files(tmp_path)
    write(out, [], force=True)
    files = tree(out)
    assert {name: files[name] for name in FOREIGN} == FOREIGN
    ours = {table.file for table in TABLES.values()} | {"metadata.json"}
    assert set(files) == set(FOREIGN) | ours  # and nothing stale in ranks/
    assert os.readlink(out / "recording") == "../elsewhere.nsys-rep"
    assert (out / "later").is_dir()
    assert os.listdir(tmp_path) == ["session"]


def test_files_of_another_version_are_known_by_its_own_list(tmp_path: Path) -> None:
    out = write(tmp_path / "session", [])
    (out / "kv_of_old.csv").write_text("a\n")
    (out / "kv_of_mine.csv").write_text("a\n")
    metadata = json.loads((out / "metadata.json").read_text())
    metadata["files"].append("kv_of_old.csv")
    (out / "metadata.json").write_text(json.dumps(metadata))
    write(out, [], force=True)
    assert not (out / "kv_of_old.csv").exists()
    assert (out / "kv_of_mine.csv").exists()


def test_a_directory_in_the_place_of_a_file_of_ours_is_refused(tmp_path: Path) -> None:
    out = write(tmp_path / "session", [])
    (out / "kv_preemptions.csv").unlink()
    (out / "kv_preemptions.csv").mkdir()
    (out / "kv_preemptions.csv" / "a").write_text("mine")
    (out / "also.txt").write_text("mine")
    before = tree(out)
    with pytest.raises(OutputError, match="not even with --force") as refused:
        write(out, force=True)
    assert refused.value.path == str(out / "kv_preemptions.csv")
    assert tree(out) == before
    assert os.listdir(tmp_path) == ["session"]


def test_a_link_to_a_session_stays_a_link(tmp_path: Path) -> None:
    out = write(tmp_path / "session", [])
    (tmp_path / "latest").symlink_to("session")
    write(tmp_path / "latest", force=True)
    assert (tmp_path / "latest").is_symlink()
    assert b"FULL" in (out / "cuda_graph_usage.csv").read_bytes()


# --------------------------------------------------------------------------- failing


def failing(error: BaseException, *, on: str = "kv_block_events.csv") -> Any:
    real = csv_session.write_csv

    def write_csv(path: Path, frame: pd.DataFrame, layout: Any, **how: Any) -> None:
        real(path, frame, layout, **how)
        if path.name == on:
            raise error

    return write_csv


@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    out = tmp_path / "session"
    before = tree(write(out)) if force else {}
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(csv_session, "write_csv", failing(full))
    with pytest.raises(OutputError) as failed:
        write(out, force=force)
    kept = "the old session is unchanged" if force else "nothing was left behind"
    assert str(failed.value) == (
        f"cannot write the session: {out}\n"
        f"  no space is left there; {kept}\n"
        "  make room, or choose another disk with -o"
    )
    assert tree(out) == before
    assert os.listdir(tmp_path) == (["session"] if force else [])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug")])
def test_an_interrupt_or_a_bug_costs_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out = session_with_foreign_files(tmp_path)
    before = tree(out)
    monkeypatch.setattr(csv_session, "write_csv", failing(error))
    with pytest.raises(type(error)):
        write(out, [], force=True)
    assert tree(out) == before
    assert os.listdir(tmp_path) == ["session"]


@pytest.mark.parametrize("fails_at", range(1, 11))  # eight carried over, then the two directories
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "I/O error")])
def test_whichever_move_fails_the_old_session_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, error: BaseException
) -> None:
    out = session_with_foreign_files(tmp_path)
    before = tree(out)
    real, calls = Path.rename, 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise error
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write(out, [], force=True)
    monkeypatch.undo()
    assert calls >= fails_at
    assert tree(out) == before
    assert os.listdir(tmp_path) == ["session"]


def test_what_cannot_be_put_back_is_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = session_with_foreign_files(tmp_path)
    before = tree(out)
    real, calls = Path.rename, 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError(errno.EIO, "I/O error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OutputError, match="putting the old files back failed too") as failed:
        write(out, [], force=True)
    scratch = Path(failed.value.hint.removeprefix("they are all in "))
    everything = tree(scratch / "new") | tree(out)
    assert {name: everything[name] for name in before} == before


@pytest.mark.parametrize("force", [False, True])
def test_of_two_that_make_one_directory_the_later_says_so(force: bool, tmp_path: Path) -> None:
    out = tmp_path / "session"

    def make(name: str, meanwhile: Callable[[], object]) -> None:
        with replaced_directory(out, force=force, ours=lambda _: True) as new:
            (new / "metadata.json").write_text(json.dumps({"session_id": name}))
            meanwhile()

    with pytest.raises(OutputError) as lost:
        make("slow", lambda: make("quick", int))
    assert str(lost.value) == (
        f"cannot write the session: {out}\n"
        "  another process wrote it meanwhile: that one is untouched, and this one left nothing\n"
        "  choose another directory with -o, or replace that one with --force"
    )
    assert tree(tmp_path) == {"session/metadata.json": b'{"session_id": "quick"}'}
    assert os.listdir(tmp_path) == ["session"], "no leftover"


def test_what_another_process_moved_away_is_not_called_unchanged(tmp_path: Path) -> None:
    out = write(tmp_path / "session")
    whole = tree(out)

    def make() -> None:
        with replaced_directory(out, force=True, ours=lambda _: True) as new:
            (new / "metadata.json").write_text('{"session_id": "slow"}')
            out.rename(tmp_path / "elsewhere")

    with pytest.raises(OutputError, match="another process moved it away meanwhile") as lost:
        make()
    assert "unchanged" not in str(lost.value)
    assert os.listdir(tmp_path) == ["elsewhere"]
    assert tree(tmp_path / "elsewhere") == whole


def test_a_file_is_no_session(tmp_path: Path) -> None:
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    for force in (False, True):
        with pytest.raises(OutputError) as refused:
            write(out, force=force)
        assert str(refused.value) == (
            f"cannot write the session: {out}\n"
            "  a session is a directory of files, and this is a file\n"
            "  choose a directory with -o"
        )
    assert out.read_text() == "mine"


def test_a_file_on_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="part of the path is a file") as refused:
        write(tmp_path / "notes.txt" / "session")
    assert refused.value.path == str(tmp_path / "notes.txt")


def test_parents_are_made(tmp_path: Path) -> None:
    assert tree(write(tmp_path / "a" / "b" / "session"))


def test_a_parent_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(f"{leftovers.__name__}.tempfile.mkdtemp", refuse)  # tests may run as root
    with pytest.raises(OutputError) as failed:
        write(tmp_path / "session")
    assert str(failed.value) == (
        f"cannot write the session: {tmp_path}\n"
        "  you may not write there; nothing was left behind\n"
        "  choose another directory with -o"
    )
    assert failed.value.exit_code == 2
