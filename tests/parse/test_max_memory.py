"""With a limit on memory the tables are the same, and nothing stays behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import bench_tables
import numpy as np
import pandas as pd
import pytest
from build import Stored, batch
from decoded import merge
from frames import At
from hypothesis import given, settings
from hypothesis import strategies as st
from places import RECORDING, ROOT
from pool_programs import Program, programs, run
from same_trace import assert_same_trace
from sidecars import WORKER, Recorder, make_up, torch_trace

from profilemate.errors import InputError, OutputError
from profilemate.parse.columns.budget import FLOOR, Budget, memory_limit
from profilemate.parse.columns.id_lists import IdLists
from profilemate.parse.columns.partition import Batches, Divided
from profilemate.parse.columns.spool import Blocks, array
from profilemate.parse.ingest.read_one import read_recording
from profilemate.parse.pipeline import read_trace
from profilemate.parse.recording.contract import Marker
from profilemate.parse.session.tables_on_demand import Built
from profilemate.parse.session.timeline_file import Options, write_timeline
from profilemate.parse.trace.trace import Trace
from profilemate.schema import Event


def few(**more: object) -> Budget:
    return Budget(held=0, rows=3, entries=5, strict=True, **more)  # type: ignore[arg-type]


def markers(events: Sequence[At], rng: random.Random) -> list[Marker]:
    """Messages of some events each, in any order."""
    found, seqs = [], dict.fromkeys((1, 2), 0)
    for pid in seqs:
        mine = [one for one in events if one.pid == pid]
        while mine:
            count = rng.randrange(1, 4)
            some, mine = mine[:count], mine[count:]
            seqs[pid] += 1
            end = some[-1].ts + 2
            said = [
                Event(one.event.kind, {"ago": end - one.ts, **one.event.values}) for one in some
            ]
            found.append(Marker(end, None, pid, pid, batch(seqs[pid], end, *said)))
    rng.shuffle(found)
    return found


def decoded(stored: Sequence[Sequence[Marker]], budget: Budget) -> Trace:
    return merge([read_recording(Stored(some), budget=budget) for some in stored])


@settings(max_examples=25, deadline=None)
@given(programs(), st.integers(0, 1 << 30))
def test_the_log_and_the_tables_are_the_same(program: Program, seed: int) -> None:
    rng = random.Random(seed)
    world, _ = run(program)
    told = markers(world.events, rng)
    cut = rng.randrange(len(told) + 1)
    # Some messages in both recordings, which count once.
    stored = [told[:cut], told[max(0, cut - rng.randrange(5)) :]]
    usual, limited = decoded(stored, Budget()), decoded(stored, few())
    assert_same_trace(usual, limited)
    one, other = Built(usual).frames(), Built(limited).frames()
    assert list(one) == list(other)
    for name, frame in one.items():
        pd.testing.assert_frame_equal(frame, other[name], check_exact=True)


@given(st.lists(st.integers(-3, 9), max_size=400), st.integers(1, 50))
def test_parts_come_in_order(values: list[int], size: int) -> None:
    rows = Divided(few(), size)
    for first in range(0, len(values), 7):
        some = np.array(values[first : first + 7], dtype=np.int64)
        rows.add({"value": some, "came": np.arange(first, first + len(some))})
    parts = [*rows.parts(lambda batch: batch["value"])]
    found = [[*zip(part["value"].tolist(), part["came"].tolist(), strict=True)] for part in parts]
    assert sorted(pair for part in found for pair in part) == sorted(
        (value, came) for came, value in enumerate(values)
    )
    for part in found:
        assert [came for _, came in part] == sorted(came for _, came in part)
    for part, later in pairwise(found):
        assert max(part)[0] < min(later)[0]


@pytest.mark.parametrize(
    ("held", "few", "as_it_is"), [(1 << 20, 6, True), (1 << 20, 5, False), (30, 6, False)]
)
def test_rows_are_packed_where_they_are_many_or_memory_is_short(
    held: int, few: int, as_it_is: bool
) -> None:
    budget = Budget(held=held, strict=True)
    batches = Batches(budget, few)
    added = [
        {"value": np.arange(3), "ids": IdLists.of([(1, 2), None, (3,)])},
        {"value": np.arange(3, 6), "ids": IdLists.of([None, (), (4,)])},
    ]
    for one in added:
        batches.add(one)
    assert (budget.used == 0) == (held == 30)  # then they are in a file
    for number, one in enumerate(added):
        found = batches.get(number)
        assert (found["value"] is one["value"]) == as_it_is
        assert found["value"].tolist() == np.asarray(one["value"]).tolist()
        assert [*batches.get(number, ("ids",))] == ["ids"]
        assert [*found["ids"]] == [[(1, 2), None, (3,)], [None, (), (4,)]][number]
    batches.forget(0)
    del batches
    assert budget.used == 0


# ------------------------------------------------------------------ files


def test_the_file_has_no_name(tmp_path: Path) -> None:
    blocks = Blocks(few(folder=str(tmp_path)))
    blocks.add(bytes(1000))
    mapped = array(1000, "int64", blocks.budget)
    mapped[:] = 7
    assert blocks.in_file
    assert blocks[0] == bytes(1000)
    assert mapped.sum() == 7000
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_by_a_signal(tmp_path: Path, number: int) -> None:
    code = (
        "from profilemate.parse.columns.spool import *\n"
        "blocks = Blocks(Budget(held=0, strict=True))\n"
        "blocks.add(bytes(1000)); print(blocks.in_file, flush=True)\n"
        "import time; time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        process.send_signal(number)
        assert process.wait() != 0
    assert not [*tmp_path.iterdir()]


class _FullFile:
    def seek(self, place: int) -> None:
        pass

    def write(self, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        pass


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: _FullFile())
    with pytest.raises(OutputError, match="No space left on device") as caught:
        Blocks(few()).add(bytes(10))
    assert "TMPDIR" in caught.value.hint
    assert Blocks(Budget(held=0)).add(bytes(10)) == 0, "without a limit it stays in memory"

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.undo()
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OutputError, match="No space left on device"):
        array(10, "int64", few())
    assert len(array(10, "int64", Budget(held=0))) == 10


# ------------------------------------------------------------------ the option


@pytest.mark.parametrize(
    ("text", "size"),
    [("300M", 300 << 20), ("0.5g", 1 << 29), ("2 GiB", 2 << 30), ("1073741824", 1 << 30)],
)
def test_a_size(text: str, size: int) -> None:
    assert memory_limit(text) == size


@pytest.mark.parametrize("text", ["much", "-1G", "1X", "", "299M", "12"])
def test_what_is_no_size_or_too_small(text: str) -> None:
    with pytest.raises(InputError):
        memory_limit(text)
    assert memory_limit(None) is None


def parse(tmp_path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profilemate", "parse", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "", "PROFILEMATE_CACHE": str(tmp_path / "cache")},
        check=False,
    )


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    done = parse(tmp_path, RECORDING, "-o", "out", "--max-memory", "20M")
    assert done.returncode == 2
    assert "The least is --max-memory 300M" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_writes_the_same(tmp_path: Path) -> None:
    assert parse(tmp_path, RECORDING, "-o", "a", "--no-cache", "-q").returncode == 0
    done = parse(tmp_path, RECORDING, "-o", "b", "--max-memory", "300M", "-q")
    assert done.returncode == 0, done.stderr
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == files
    for name in files:
        if name != "metadata.json":
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not (tmp_path / "cache").exists(), "nothing is cached"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_ended_takes_back_what_it_began(tmp_path: Path, number: int) -> None:
    lines = (
        f'{{"ph":"i","cat":"profilemate","name":"{text}","pid":7,"tid":7,"ts":{1 + t / 1000},'
        '"s":"t"},\n'
        for t, text in bench_tables.messages(300_000)
    )
    trace = tmp_path / "t.trace.json"
    with trace.open("w") as file:
        file.write("[\n")
        file.writelines(lines)
    there = {trace, tmp_path / "old"}
    (tmp_path / "old").mkdir()
    for _ in range(5):  # a machine may be too busy for us to see it write
        code = _ended(tmp_path, trace, number)
        left = {*tmp_path.iterdir()} - there
        assert left in (set(), {tmp_path / "out"}), left
        if code and not left:
            break
        assert (tmp_path / "out" / "metadata.json").is_file(), "whole or not at all"
        shutil.rmtree(tmp_path / "out")
    assert code == 128 + number


def _ended(tmp_path: Path, trace: Path, number: int) -> int:
    """Send a signal to a command that has begun to write; its exit code."""
    command = [sys.executable, "-m", "profilemate", "parse", str(trace), "-o", "out"]
    with subprocess.Popen(
        [*command, "--max-memory", "300M"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "", "PROFILEMATE_CACHE": str(tmp_path / "old")},
    ) as process:
        while process.poll() is None and not [*tmp_path.glob(".out.*")]:
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate()
    assert b"Traceback" not in said
    return process.returncode


def test_memory_hardly_grows_with_the_operations(tmp_path: Path) -> None:
    def taken(operations: int) -> int:
        """Bytes of memory at the most, files of its own left out."""
        code = (
            "import sys, resource, pathlib, bench_tables as b\n"
            "from profilemate.parse.columns.budget import Budget\n"
            "from profilemate.parse.merge.aligned_recordings import align_recordings\n"
            "from profilemate.parse.merge.recordings_to_trace import make_trace\n"
            "from profilemate.parse.pipeline import write_session\n"
            "from profilemate.parse.ingest.read_one import read_recording\n"
            "budget = Budget(held=1 << 20, rows=1 << 12, entries=1 << 14, strict=True)\n"
            "read = read_recording(b.Recording(int(sys.argv[1])), budget=budget)\n"
            "trace = make_trace(align_recordings([read]))\n"
            "write_session(trace, pathlib.Path(sys.argv[2]))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(operations), str(tmp_path / str(operations))],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts' / 'bench'}"},
            check=True,
        )
        return int(done.stdout)

    assert bench_tables.BLOCKS == 20_000
    # Without a limit it is some 40 MB more; names of requests and messages make up the rest.
    assert taken(600_000) - taken(200_000) < 30 << 20
    assert FLOOR == 300 << 20


def test_a_timeline_without_kernels_needs_no_record(tmp_path: Path) -> None:
    run_, recorder = make_up(3, steps=30), Recorder()
    path = torch_trace(tmp_path / "t.json", run_, WORKER, run_.of(WORKER), recorder)
    made = []
    for records in (True, False):
        trace = read_trace([path], records=records)
        assert (len(trace.gpu) > 0) == records
        assert len(trace.work.rows["start"]) > 0
        write_timeline(trace, tmp_path / f"{records}.pftrace", Options())
        made.append((tmp_path / f"{records}.pftrace").read_bytes())
    assert made[0] == made[1]
