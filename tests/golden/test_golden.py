"""Every bundled recording gives the tables that lie beside it, byte for byte."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import made_gpu_files
import made_gpu_run
import pandas as pd
import pytest
from leaks import find_leaks
from places import DATA, EXPECTED

from profilemate.parse.pipeline import parse_session
from profilemate.parse.tables import TABLES

FILES = {
    "vllm_cpu_server": ("recording.sqlite",),
    "made_nsys": ("recording.sqlite",),
    "made_torch": ("recording.json.gz", "engine.trace.json", "worker.trace.json"),
}
RECORDINGS = {name: [DATA / name / file for file in files] for name, files in FILES.items()}
VOLATILE = ("output_dir", "sources", "versions")


def files_of(folder: Path) -> dict[str, str]:
    """The text of every file of a session, ranks' too, by its path in it."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in paths}


def comparable(folder: Path) -> dict[str, str]:
    """The files of a session, without what tells where and by which version it was made."""
    files = files_of(folder)
    metadata = json.loads(files["metadata.json"])
    kept = {key: value for key, value in metadata.items() if key not in VOLATILE}
    files["metadata.json"] = json.dumps(kept, indent=2, sort_keys=True) + "\n"
    return files


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sessions are named by local time: here by one that is the same everywhere."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_all_that_is_expected_is_compared() -> None:
    assert sorted(path.parent.name for path in DATA.glob("*/expected")) == sorted(RECORDINGS)


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize("name", RECORDINGS)
def test_the_tables_are_the_golden_ones(
    name: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    session = parse_session(RECORDINGS[name], tmp_path / "session")
    found = comparable(session.path)
    expected = DATA / name / "expected"
    if pytestconfig.getoption("update_references"):
        shutil.rmtree(expected, ignore_errors=True)
        expected.mkdir()
        for path, text in found.items():
            (expected / path).parent.mkdir(parents=True, exist_ok=True)
            (expected / path).write_text(text, encoding="utf-8")
    golden = files_of(expected)
    assert list(found) == list(golden)
    for path, text in found.items():
        assert text == golden[path], path


def busy(spans: list[tuple[int, int]]) -> int:
    """Nanoseconds in which any of some spans runs: one by one."""
    return len({ns for begin, end in spans for ns in range(begin, end)})


@pytest.mark.parametrize(("rank", "folder"), [(0, "."), (1, "ranks/dp0_pp0_tp1")])
def test_gpu_figures_are_those_of_the_run_that_was_made_up(rank: int, folder: str) -> None:
    run, pid = made_gpu_run.make(), made_gpu_run.WORKERS[rank]
    with (DATA / "made_nsys" / "expected" / folder / "cuda_graph_steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == made_gpu_run.TURNS + 1  # and the one without tokens
    for row in rows[:-1]:
        begin = round(float(row["timestamp_sec"]) * 1e9)
        end = begin + round(float(row["host_ms"]) * 1e6)
        calls = [c for c in run.calls if c.pid == pid and begin <= c.ns < end]
        launches = [c for c in calls if c.name == "cudaGraphLaunch"]
        assert int(row["launches"]) == int(row["expected_launches"]) == len(launches)
        started = {c.correlation for c in calls}
        work = [w for w in run.work if w.pid == pid and w.correlation in started]
        for columns, found in (
            (("graph_gpu_ms", "graph_gpu_busy_ms"), [w for w in work if w.graph is not None]),
            (("gpu_ms", "gpu_busy_ms"), work),
        ):
            spans = [(w.ns, w.ns + w.duration_ns) for w in found]
            wanted = ["None", "None"]
            if spans:
                span = max(e for _, e in spans) - min(b for b, _ in spans)
                wanted = [f"{ns / 1e6:.6f}" for ns in (span, busy(spans))]
            assert [row[column] for column in columns] == wanted
        if launches:
            took = sum(c.duration_ns for c in launches)
            first = min(w.ns for w in work if w.correlation == launches[0].correlation)
            assert row["launch_ms"] == f"{took / 1e6:.6f}"
            assert row["gpu_delay_ms"] == f"{(first - launches[0].ns) / 1e6:.6f}"
            assert int(row["gpu_records"]) == sum(w.graph is not None for w in work)


NEVER: dict[str, str] = {}
"""Columns (`table.column`) without a golden value, and why."""


def test_every_column_has_a_golden_value() -> None:
    """A figure that no golden file shows could change unseen."""
    missing = []
    for table in TABLES.values():
        if table.heading:
            continue  # lines of text, all there or none
        values: set[str] = set()
        for name in RECORDINGS:
            frame = pd.read_csv(
                DATA / name / "expected" / f"{table.name}.csv", dtype=str, keep_default_na=False
            )
            values |= {c for c in frame.columns if set(frame[c]) - {"None", ""}}
        missing += [f"{table.name}.{c.name}" for c in table.columns if c.name not in values]
    assert missing == list(NEVER)


def rows_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def test_what_is_made_is_made_by_its_script(tmp_path: Path) -> None:
    """Contents, not bytes: these depend on the libraries that pack them."""
    for made in made_gpu_files.write(tmp_path):
        bundled = DATA / made.relative_to(tmp_path)
        if made.suffix == ".sqlite":
            assert rows_of(made) == rows_of(bundled)
        elif made.suffix == ".gz":
            assert gzip.decompress(made.read_bytes()) == gzip.decompress(bundled.read_bytes())
        else:
            assert made.read_bytes() == bundled.read_bytes()
        readme = "README.md"
        assert made.with_name(readme).read_text() == bundled.with_name(readme).read_text()


def test_the_bundled_run_shows_every_kv_event() -> None:
    events = pd.read_csv(EXPECTED / "kv_block_events.csv")
    assert set(events["op"]) >= {"alloc", "cache", "evict", "free", "touch"}
    for name in ("kv_preemptions", "kv_cache_evictions", "kv_prefix_cache", "kv_cache_usage"):
        assert len(pd.read_csv(EXPECTED / f"{name}.csv")) > 5, name


# What Nsight Systems writes about a machine into a report, and what must not be in a bundled one.
WORDS = ("/home/", "/root", "/work", "/usr/", "/tmp/", "PATH=", "HOME=", "LD_LIBRARY", "python3")
HOST_WORDS = ("localhost", "hostname", "vllm.entrypoints", "--model")


@pytest.mark.parametrize("name", RECORDINGS)
def test_nothing_bundled_tells_of_a_machine(name: str) -> None:
    import socket

    words = [*WORDS, *HOST_WORDS, *([host] if len(host := socket.gethostname()) > 3 else [])]
    for recording in RECORDINGS[name]:
        assert find_leaks(recording, words) == []
        # The search itself finds what is there.
        assert find_leaks(recording, ["step"]) != []
