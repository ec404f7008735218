"""Several recordings at a time: here, in processes, and on a real Dask cluster of two workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gpu_build import GpuExport
from kineto_texts import kineto_2026, long_run, write
from places import ROOT, SUPPORT
from unreadable import Endless, InParts, Killed, KilledLater, Nested, pids

from profilemate.errors import InputError, ToolError
from profilemate.parse.ingest import read_many
from profilemate.parse.ingest.read_many import read_all
from profilemate.parse.ingest.read_one import Task
from profilemate.parse.pipeline import parse_session, read_trace
from profilemate.parse.recording.worker_processes import Share


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    """Three workers, one of which did not annotate itself."""
    paths = []
    for number in range(3):
        export = GpuExport(
            seed=number, pid=100 + number, tid=200 + number, marked=number != 2, mode="node"
        )
        paths.append(export.write(tmp_path / f"rank{number}.sqlite"))
    return paths


def files(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {
        name: path.read_bytes().replace(str(folder).encode(), b"OUT")
        for name, path in found.items()
    }


def test_processes_change_no_byte(recordings: list[Path], tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    parse_session(recordings, tmp_path / "one")
    parse_session(
        recordings, tmp_path / "two", jobs=2, progress=lambda _, done, of: told.append((done, of))
    )
    one = files(tmp_path / "one")
    assert one == files(tmp_path / "two")
    assert b"," in one["cuda_graph_steps.csv"]
    reading = [done for done, of in told if of == 3000]
    assert reading == sorted(reading)
    assert reading[0] == 0
    assert reading[-1] == 3000


def test_records_come_back_too(recordings: list[Path]) -> None:
    one, two = (read_trace(recordings, jobs=jobs) for jobs in (1, 3))
    assert len(one.gpu) > 50
    assert one.gpu.equals(two.gpu)
    assert one.launches.equals(two.launches)
    assert one.names == two.names
    assert one.notes == two.notes


def test_an_error_in_a_process_is_the_same_error(recordings: list[Path]) -> None:
    recordings[1].write_bytes(recordings[1].read_bytes()[:5000])
    told = []
    for jobs in (1, 2):
        with pytest.raises(InputError) as caught:
            read_trace(recordings, jobs=jobs)
        told.append((type(caught.value), str(caught.value)))
    assert told[0] == told[1]
    assert str(recordings[1]) in told[0][1]


def test_a_directory_leaves_out_what_cannot_be_read(recordings: list[Path], tmp_path: Path) -> None:
    cut = recordings[1].read_bytes()
    recordings[1].write_bytes(cut[: len(cut) * 19 // 20])
    one, two = (read_trace([tmp_path], jobs=jobs) for jobs in (1, 2))
    assert [s.notes for s in one.sources] == [s.notes for s in two.sources]
    assert one.launches.equals(two.launches)


def test_a_wrong_path_is_said_before_anything_is_read(recordings: list[Path]) -> None:
    with pytest.raises(InputError, match="nowhere"):
        read_trace([*recordings, Path("nowhere.sqlite")], jobs=2)


def test_a_killed_process_is_said(recordings: list[Path]) -> None:
    tasks = [Task(recordings[0]), Killed(recordings[1]), Task(recordings[2])]
    with pytest.raises(ToolError, match="memory ran out") as caught:
        read_all(tasks, jobs=2)
    assert caught.value.path == str(recordings[1])
    assert "--jobs 1" in caught.value.hint


def test_an_error_ends_the_others_at_once(recordings: list[Path], tmp_path: Path) -> None:
    tasks = [Endless(recordings[0]), Killed(recordings[1])]
    with pytest.raises(ToolError):
        read_all(tasks, jobs=2)
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_an_error_ends_the_processes_of_the_others_too(
    recordings: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ToolError, match="memory ran out"):
        read_all([Nested(recordings[0]), KilledLater(recordings[1])], jobs=2)
    (pid,) = pids(tmp_path)
    until = time.monotonic() + 60
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)  # the kernel ends it, and nobody waits for that
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


SCRIPT = """
import sys
from pathlib import Path
from unreadable import Endless
from profilemate.parse.ingest.read_many import read_all

if __name__ == "__main__":
    read_all([Endless(Path(p)) for p in sys.argv[1:]], jobs=2)
"""


def test_ctrl_c_ends_all(recordings: list[Path], tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": f"{SUPPORT}:{ROOT}"}
    command = [sys.executable, str(script), *map(str, recordings[:2])]
    with subprocess.Popen(command, env=env, start_new_session=True, stderr=subprocess.PIPE) as run:
        until = time.monotonic() + 120
        while len(pids(tmp_path)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        reading = pids(tmp_path)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(60) != 0
        assert run.stderr is not None
        said = run.stderr.read().decode()
    assert len(reading) == 2
    assert not any(alive(pid) for pid in reading)
    assert said.count("KeyboardInterrupt") == 1  # ours; the readers end without a word


def test_how_many_processes_fit(recordings: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [Task(path) for path in recordings]
    roomy, tight = Share(cores=5, memory=1 << 40), Share(cores=5, memory=100 << 20)
    assert read_many.fitting(tasks, roomy) == 1  # small ones are not worth a process
    monkeypatch.setattr(read_many, "_WORTH", 1)
    assert read_many.fitting(tasks, roomy) == 5
    assert read_many.fitting(tasks, tight) == 1
    assert read_many.fitting([Task(recordings[0].parent)], roomy) == 5
    assert Share(cores=5, memory=2 << 30).processes == 3
    assert Share.whole().cores == len(os.sched_getaffinity(0))
    assert Share.whole().memory > 1 << 26


# ------------------------------------------------------------------ processes of processes


@pytest.mark.parametrize(("cores", "jobs", "each"), [(2, 2, 1), (6, 2, 3), (1, 2, 1), (7, 3, 2)])
def test_a_process_that_reads_starts_no_more_than_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, jobs: int, each: int
) -> None:
    """Of a machine of so many cores; until now each of `jobs` started as many as there are."""
    machine = Share(cores, 1 << 40)
    monkeypatch.setattr(Share, "whole", lambda: machine)
    paths = [write(tmp_path / f"{i}.json", long_run(kineto_2026, 400)) for i in range(jobs)]
    reads = read_all([InParts(path) for path in paths], jobs=jobs)
    for path, read in zip(paths, reads, strict=True):
        log = path.with_suffix(".started")
        started = log.read_text().split() if log.exists() else []
        assert len(started) == each - 1
        assert read.activity.api_calls == {"cudaGraphLaunch": 399}
        assert str(os.getpid()) not in started


def test_a_share_of_the_memory_is_a_limit_too() -> None:
    machine = Share(cores=16, memory=4 << 30)
    assert (machine.processes, machine.divided(2), machine.divided(2).processes) == (
        6,
        Share(8, 2 << 30),
        3,
    )
    assert machine.divided(40) == Share(1, (4 << 30) // 40)
    assert machine.divided(40).processes == 1


# ------------------------------------------------------------------ a cluster


CLUSTER = """
import sys
from distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster that a program of its own has started."""
    script = tmp_path_factory.mktemp("cluster") / "cluster.py"
    script.write_text(CLUSTER)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, str(script)], env=env, text=True, **pipes) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        yield running.stdout.readline().strip()
        running.stdin.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_cluster_changes_no_byte(recordings: list[Path], tmp_path: Path, cluster: str) -> None:
    parse_session(recordings, tmp_path / "one")
    parse_session(recordings, tmp_path / "two", scheduler=cluster)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_an_error_on_a_cluster_is_the_same_error(recordings: list[Path], cluster: str) -> None:
    recordings[1].write_bytes(recordings[1].read_bytes()[:5000])
    told = []
    for scheduler in (None, cluster):
        with pytest.raises(InputError) as caught:
            read_trace(recordings, scheduler=scheduler)
        told.append((type(caught.value), caught.value.what, caught.value.path, caught.value.why))
    assert told[0] == told[1]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "nonsense", "tcp://h:x"])
def test_a_scheduler_that_does_not_answer(
    recordings: list[Path], address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ToolError, match="does not answer"):
        read_trace(recordings, scheduler=address)
    assert not any(capfd.readouterr())  # Dask's client would print what went on in its threads


def test_a_process_that_reads_starts_without_pandas() -> None:
    """Which takes longer to import than all the rest."""
    module = "profilemate.parse.ingest.read_many"
    code = f"import sys; import {module}; print('pandas' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
