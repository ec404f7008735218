"""Live sessions of a real vLLM server: set `PYTHONPATH`, run it, find the tables.

The witness of every total is vLLM's own `/metrics` of the same run.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import engine
import pytest
import seed_lines
from live_server import Live, LiveServer, await_flushed, check_totals, in_own_mounts
from places import ROOT
from served import profilemate

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, vllm_python: Path, model: Path) -> LiveServer:
    return LiveServer(vllm_python, model, tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module")
def interrupted(servers: LiveServer) -> Live:
    """The seed's way: `PYTHONPATH` is the clone's root; Ctrl-C at the end."""
    live = servers.run("sigint", servers.folder / "by-door", signal.SIGINT)
    live.await_tables()
    return live


@pytest.fixture(scope="module")
def plain(servers: LiveServer) -> Live:
    """The same server without profilemate."""
    return servers.run(
        "plain",
        servers.folder / "none",
        signal.SIGINT,
        door=None,
        env={
            "VLLM_PROFILING_DIR": "",
        },
    )


def test_ctrl_c_leaves_the_tables_and_they_are_vllm_s_own_counts(interrupted: Live) -> None:
    check_totals(interrupted)
    assert interrupted.log.count("[sitecustomize] vLLM Comprehensive Instrumentation Loaded") == 1
    (line,) = [t for t in interrupted.log.splitlines() if "live session:" in t]
    assert str(interrupted.session) in line


def test_the_session_is_one_and_its_files_are_the_seed_s(interrupted: Live) -> None:
    names = {p.name for p in interrupted.session.iterdir()}
    assert {
        "metadata.json",
        "cuda_graph_captures.csv",
        "cuda_graph_usage.csv",
        "cuda_graph_timeline.csv",
        "kv_cache_usage.csv",
        "kv_cache_evictions.csv",
        "kv_cache_summary.txt",
    } <= names
    facts = interrupted.metadata
    assert facts["session_id"] == interrupted.session.name
    assert facts["output_dir"] == str(interrupted.session)
    assert {p["role"] for p in facts["processes"]} == {"engine", "worker"}
    pids = {p["pid"] for p in facts["processes"]}
    assert {s["recorder"] for s in facts["sources"]} == {"profilemate sidecar"}
    markers = [p.name for p in (interrupted.session / "markers").iterdir()]
    assert sorted(markers) == sorted(
        f"{p['role']}_dp0_pp0_tp0_{p['pid']}.trace.json" for p in facts["processes"]
    )
    assert len(pids) == 2
    assert facts["durations"] == {"cuda_graph_timeline": "host"}
    assert [p.name for p in interrupted.place.iterdir()] == [interrupted.session.name]


def test_vllm_ends_as_it_does_without_us(interrupted: Live, plain: Live) -> None:
    assert interrupted.code == plain.code == 0
    # How long each took is measured by scripts/bench/bench_live.py.
    assert not plain.place.exists()
    assert "[profilemate]" not in plain.log


def test_the_seed_s_own_lines_run_on_the_files_as_they_are(interrupted: Live) -> None:
    session = interrupted.session
    usage, evictions = (interrupted.table(f"kv_cache_{n}") for n in ("usage", "evictions"))
    names = seed_lines.shell(session, f'ls "{session.parent}"/session_*/')
    assert {"metadata.json", "kv_cache_usage.csv"} <= set(names.split())
    mean = float(seed_lines.shell(session, seed_lines.MEAN_USAGE))
    assert mean == pytest.approx(usage["usage_pct"].mean(), rel=1e-4)
    peak = seed_lines.shell(session, seed_lines.PEAK_USAGE)
    assert float(peak.split(",")[1]) == usage["usage_pct"].max() > 90
    quick = (evictions["lifetime_sec"] < 10).sum()
    assert seed_lines.shell(session, seed_lines.QUICK) == f"{quick} blocks evicted quickly\n"
    metrics = seed_lines.python(session, seed_lines.TO_PROMETHEUS)
    assert metrics.count("vllm_kv_cache_usage{") == len(usage) > 20
    # A CPU captures no graphs: the lines about them run on a header alone here, and on rows in
    # test_graph_tables.py.
    assert seed_lines.shell(session, "wc -l cuda_graph_captures.csv").startswith("1 ")
    assert "runtime_mode" in seed_lines.shell(session, seed_lines.MOST_USED)


def test_by_hand_it_gives_the_same_bytes_in_the_same_place(interrupted: Live) -> None:
    session = interrupted.session
    (session / "notes.txt").write_text("mine")
    before = {p.name: p.read_bytes() for p in session.glob("*.[ct]*") if p.name != "metadata.json"}
    profilemate("parse", session)
    assert {n: (session / n).read_bytes() for n in before} == before
    assert (session / "notes.txt").read_text() == "mine"
    assert len([*(session / "markers").iterdir()]) == 2


def test_sigterm_installed_and_packed(servers: LiveServer, installed: Path) -> None:
    # pip install and nothing else: PROFILEMATE=on asks for the session. Two servers at once, in
    # one directory, started in one shell: the second is interrupted while the first goes on.
    place = servers.folder / "both"
    env = {"PROFILEMATE": "on", "PROFILEMATE_DIR": str(place), "PROFILEMATE_GZIP": "1"}
    # `vllm serve` spawns its processes, `LLM` forks them: one of each.
    forked = env | {"VLLM_WORKER_MULTIPROC_METHOD": "fork"}
    lives = [Live(place), Live(place)]
    with (
        servers.server("first", env, installed) as first,
        servers.server("second", forked, installed) as second,
    ):
        for live, server in zip(lives, (first, second), strict=True):
            engine.workload(server)
            live.metrics = engine.metrics(server)
        await_flushed(place)
        found = sorted(place.glob("session_*"))
        assert len(found) == 2
        engines = [str(server.pid_of("EngineCore")) for server in (first, second)]
        owners = dict(zip(engines, lives, strict=True))
        for session in found:
            (marker,) = (session / "markers").glob("engine_*.trace.json.gz")
            owners[marker.name.rpartition("_")[2].partition(".")[0]].session = session
        lives[1].seconds = second.stop(signal.SIGTERM)
        lives[1].await_tables()
        assert "recording" in lives[0].metadata  # it has not ended
        # By hand, while it runs:
        profilemate("parse", lives[0].session)
        lives[0].log = (servers.folder / "first" / "server.log").read_text()
        check_totals(lives[0])
        engine.workload(first)
        lives[0].metrics = engine.metrics(first)
        await_flushed(place)
        first.stop(signal.SIGTERM)
        deadline = time.monotonic() + 60
        log = lives[0].session / "parse.log"
        while not (log.exists() and "wrote the tables" in log.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    for name, live in zip(("first", "second"), lives, strict=True):
        live.log = (servers.folder / name / "server.log").read_text()
        check_totals(live)
        assert "live session:" in live.log
    assert first.run.process.returncode == second.run.process.returncode == 0


@pytest.mark.parametrize("whom", ["EngineCore", "Worker", ""])
def test_whoever_is_killed_what_was_flushed_is_there(servers: LiveServer, whom: str) -> None:
    name = f"kill-{whom or 'server'}"
    live = servers.run(name, servers.folder / name, signal.SIGKILL, whom=whom)
    # A server whose engine or worker is killed ends by itself, as vLLM has it, with whatever code.
    assert (live.code == -signal.SIGKILL) == (not whom)
    # All of the run are gone by now. Whether somebody could start the end or not:
    profilemate("parse", live.session)
    check_totals(live)
    notes = live.metadata["notes"]
    killed = [n for n in notes if "has no end" in n]
    assert killed or not whom
    for file in (live.session / "markers").iterdir():
        text = file.read_text()
        if not text.endswith("\n]\n"):
            text = text[: text.rindex("\n")].rstrip(",") + "]"
        assert len(json.loads(text)) > 100


def test_a_read_only_directory_costs_one_line(servers: LiveServer) -> None:
    place = servers.folder / "read-only"
    place.mkdir()
    mount = f"mount -t tmpfs -o ro none {place}"
    python = in_own_mounts(servers.python, servers.folder / "ro-python", mount)
    env = {"VLLM_PROFILING_DIR": str(place)}
    # Where nothing may be mounted, the one place that not even root can write is /proc.
    env = env if python else {"VLLM_PROFILING_DIR": "/proc"}
    with servers.server("read-only-server", env, ROOT, python=python or servers.python) as server:
        engine.workload(server)
        server.stop(signal.SIGINT)
    assert server.run.process.returncode == 0
    log = (servers.folder / "read-only-server" / "server.log").read_text()
    (line,) = [t for t in log.splitlines() if "[profilemate]" in t]
    assert env["VLLM_PROFILING_DIR"] in line
    assert "set PROFILEMATE_DIR" in line


def test_a_disk_that_fills_costs_one_line(servers: LiveServer) -> None:
    place = servers.folder / "small"
    place.mkdir()
    mount = f"mount -t tmpfs -o size=128k none {place}"
    python = in_own_mounts(servers.python, servers.folder / "full-python", mount)
    if python is None:
        pytest.skip("nothing may be mounted here: tests/annotate/test_sidecar.py has a stand-in")
    with servers.server("full", {"VLLM_PROFILING_DIR": str(place)}, ROOT, python=python) as server:
        engine.workload(server)
        assert engine.workload(server).requests == 44  # it serves on
        seen = Path(f"/proc/{server.pid_of('EngineCore')}/root") / place.relative_to("/")
        (session,) = seen.glob("session_*")
        texts = [file.read_text() for file in (session / "markers").iterdir()]
        server.stop(signal.SIGINT)
    assert server.run.process.returncode == 0
    assert sum(map(len, texts)) > 100_000
    stopped = 0
    for text in texts:
        # Whoever met the full disk put an end over its last lines; the others go on.
        ended = text.endswith("]\n")
        whole = text if ended else text[: text.rindex("\n")].rstrip(",") + "\n]"
        events = json.loads(whole)
        assert len(events) > 50
        stopped += events[-1].get("args", {}).get("stopped") == "No space left on device"
    assert stopped
    log = (servers.folder / "full" / "server.log").read_text()
    (line,) = [t for t in log.splitlines() if "cannot be written" in t]
    assert "No space left on device" in line
    assert "a fault of profilemate" not in log
    assert os.path.ismount(place) is False
