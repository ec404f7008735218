"""Which recordings are of one run, what is in a directory, and what is said of the rest."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest
from sidecars import ENGINE, START, WORKER, MadeUp, Recorder, make_up, nsys, sidecar, torch_trace

from profilemate.errors import InputError
from profilemate.parse.pipeline import parse_session, read_trace
from profilemate.parse.trace.ranks import split_ranks

HOUR = 3_600_000_000_000


def session(folder: Path, run: MadeUp) -> Path:
    """A session directory with the sidecars of all processes."""
    for pid in run.pids:
        sidecar(folder / "markers", run, pid, run.said, Recorder(seed=pid))
    return folder


def front_end(path: Path, run: MadeUp, first: int = START) -> Path:
    """The trace of vLLM's front end: no messages, no model."""
    base = Recorder().wall(first)
    events = [
        {
            "ph": "X",
            "cat": "cpu_op",
            "name": "aten::empty",
            "pid": 3999,
            "tid": 1,
            "ts": t,
            "dur": 3,
        }
        for t in range(1000, 60_000, 1000)
    ]
    document = {"schemaVersion": 1, "baseTimeNanoseconds": base, "traceEvents": events}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    return path


def other_program(path: Path, first: int = START) -> Path:
    """A torch trace of a training, with graph launches."""
    base = Recorder().wall(first)
    name = "cudaGraphLaunch"
    events = [
        {
            "ph": "X",
            "cat": "cuda_runtime",
            "name": name,
            "pid": 9,
            "tid": 9,
            "ts": 1000.0 * n,
            "dur": 4.0,
            "args": {"correlation": n},
        }
        for n in range(1, 9)
    ]
    document = {"schemaVersion": 1, "baseTimeNanoseconds": base, "traceEvents": events}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def test_a_session_directory_with_everything_in_it(tmp_path: Path) -> None:
    run = make_up(1, workers=2)
    folder = session(tmp_path / "session_x", run)
    for pid in run.pids[1:]:
        torch_trace(
            folder / "torch" / f"rank{pid}.pt.trace.json.gz", run, pid, run.said, Recorder()
        )
    front_end(folder / "torch" / "async_llm.pt.trace.json.gz", run)
    (folder / "notes.json").write_text('{"schemaVersion": 2, "mine": true}')
    (folder / "config.json").write_text('{"a": 1}')
    done = parse_session([folder])
    assert done.path == folder
    kinds = {Path(str(s.path)).name: s.words for s in done.metadata.sources}
    assert kinds[f"engine_dp0_pp0_tp0_{ENGINE}.trace.json"] == "profilemate sidecar"
    assert kinds[f"rank{WORKER}.pt.trace.json.gz"] == "torch profiler trace"
    assert "front end" in str(kinds["async_llm.pt.trace.json.gz"])
    assert "config.json" not in kinds
    assert [p.role for p in done.metadata.processes] == ["engine", "worker", "worker"]
    # What is not a recording after all is said, and nothing else is doubtful.
    assert [w for w in done.warnings if not w.startswith(("notes.json", "config.json"))] == []
    assert any("notes.json is left out" in w for w in done.warnings)
    assert any("config.json is not read" in w for w in done.warnings)
    steps_apart = done.metadata.clock.steps
    assert steps_apart is not None
    assert (steps_apart.compared, steps_apart.early) == (2 * run.steps, 0)
    twice = sum(len(run.of(pid)) for pid in run.pids[1:])
    assert sum(done.metadata.duplicates.values()) == twice
    steps = pd.read_csv(folder / "ranks" / "dp0_pp0_tp1" / "cuda_graph_steps.csv")
    assert steps["scheduled_tokens"].tolist() == steps["unpadded_tokens"].tolist()
    # The user's own files are where they were, and it can be done again.
    assert (folder / "notes.json").read_text() == '{"schemaVersion": 2, "mine": true}'
    again = parse_session([folder])
    assert again.metadata.duplicates == done.metadata.duplicates


def test_ranks_side_by_side(tmp_path: Path) -> None:
    run = make_up(1, workers=3)
    folder = session(tmp_path / "s", run)
    parse_session([folder], tmp_path / "out")
    ranks = pd.read_csv(tmp_path / "out" / "ranks.csv")
    assert ranks["pid"].tolist() == run.pids
    assert ranks["rank"].tolist() == ["dp0_pp0_tp0", "dp0_pp0_tp0", "dp0_pp0_tp1", "dp0_pp0_tp2"]
    assert ranks["host"].unique().tolist() == [run.host]
    assert ranks["steps"].tolist() == [run.steps] * 4
    middle = []
    for pid in run.pids[1:]:
        of_graphs = sorted(
            (m.dur or 0)
            for m in run.of(pid)
            if m.dur is not None and m.events[0].values["mode"] == "FULL"
        )
        middle.append(of_graphs[(len(of_graphs) - 1) // 2])
    # Sidecars have the host's durations: the range, and the 40 us before it opened.
    expected = [(d + 40_000) / 1e6 for d in middle]
    found = ranks["replay_p50_ms"].iloc[1:].astype(float).tolist()
    assert found == pytest.approx(expected, abs=0.02)
    ratio = ranks["replay_ratio"].iloc[1:].astype(float).tolist()
    assert ratio == pytest.approx([d / sorted(expected)[1] for d in expected], abs=0.02)
    assert set(ranks["replay_on"].iloc[1:]) == {"host"}
    assert not (tmp_path / "out" / "ranks" / "dp0_pp0_tp1" / "ranks.csv").exists()


def test_two_sessions_in_one_directory_are_refused_by_name(tmp_path: Path) -> None:
    first = session(tmp_path / "session_1", make_up(1))
    later = session(tmp_path / "session_2", make_up(2, first=START + HOUR, engine=5000))
    with pytest.raises(InputError) as refused:
        read_trace([tmp_path])
    assert "recordings of 2 runs" in refused.value.what
    assert set(refused.value.commands) == {f"profilemate parse {one}" for one in (first, later)}
    for one in (first, later):
        read_trace([one])


def test_two_servers_at_once_are_refused(tmp_path: Path) -> None:
    session(tmp_path / "session_1", make_up(1))
    session(tmp_path / "session_2", make_up(2, engine=5000))
    with pytest.raises(InputError, match="recordings of 2 runs"):
        read_trace([tmp_path])


def test_an_old_trace_lying_beside_is_refused_with_what_to_type(tmp_path: Path) -> None:
    run, old = make_up(1), make_up(2, first=START - HOUR)  # the same pids, as containers have them
    folder = session(tmp_path / "s", run)
    stale = torch_trace(tmp_path / "s" / "old.pt.trace.json", old, WORKER, old.said, Recorder())
    # It lies in the session: taken as the user's wish. Beside it, it is another run.
    beside = stale.rename(tmp_path / "old.pt.trace.json")
    with pytest.raises(InputError) as refused:
        read_trace([tmp_path])
    assert set(refused.value.commands) == {f"profilemate parse {one}" for one in (beside, folder)}


def test_files_that_are_named_are_doubted_not_refused(tmp_path: Path) -> None:
    one = nsys(tmp_path / "a.sqlite", make_up(1), make_up(1).said, Recorder())
    later = make_up(2, first=START + HOUR, engine=5000)
    two = nsys(tmp_path / "b.sqlite", later, later.said, Recorder())
    trace = read_trace([one, two])
    assert any("recordings of 2 runs" in note for note in trace.notes)
    assert [r.rank.extra for r in split_ranks(trace)] == [0, 1]
    assert read_trace([one]).notes == []


def test_a_trace_of_another_program_is_left_out(tmp_path: Path) -> None:
    run = make_up(1)
    folder = session(tmp_path / "s", run)
    other_program(folder / "training.json")
    trace = read_trace([folder])
    assert len(trace.launches) == 0
    assert any("training.json holds 8 graph launches" in n for s in trace.sources for n in s.notes)
    # Alone it is what was asked for.
    assert len(read_trace([folder / "training.json"]).launches) == 8


@pytest.mark.parametrize("content", ["", "[\n", '[\n{"ph":"M","name":"process_name"},\n'])
def test_a_sidecar_with_nothing_in_it(tmp_path: Path, content: str) -> None:
    run = make_up(1)
    folder = session(tmp_path / "s", run)
    (folder / "markers" / "worker_dp0_pp0_tp3_77.trace.json").write_text(content)
    trace = read_trace([folder])
    assert len(trace.frames["sched.step"]) == run.steps


def test_a_directory_with_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schemaVersion": 2}')
    with pytest.raises(InputError, match="holds no events"):
        read_trace([tmp_path])


def test_processes_of_two_hosts_with_equal_numbers(tmp_path: Path) -> None:
    """Two nodes of one run, each in a container where the worker is process 4001."""
    run = make_up(1, workers=2)
    far = make_up(1, workers=2, host="box-2")
    far.roles[WORKER] = {**far.roles[WORKER], "tp": 1}
    near = [sidecar(tmp_path / "a", run, pid, run.said, Recorder())[0] for pid in run.pids[:2]]
    off = Recorder(off=2_000_000, seed=9)
    (other,) = sidecar(tmp_path / "b", far, WORKER, far.said, off)
    trace = read_trace([*near, other])
    assert len(trace.frames["step"]) == 2 * run.steps
    assert [r.rank.tp for r in split_ranks(trace)] == [0, 1]
    ranks = {p.host: p for r in split_ranks(trace) for p in r.processes if "worker" in p.role}
    assert set(ranks) == {"box-1", "box-2"}
    done = parse_session([*near, other], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "ranks.csv")
    assert table["pid"].tolist() == [ENGINE, WORKER, WORKER]
    assert any("wall clocks of their hosts" in w for w in done.warnings)
    steps = pd.read_csv(tmp_path / "out" / "ranks" / "dp0_pp0_tp1" / "cuda_graph_steps.csv")
    assert steps["scheduled_tokens"].tolist() == steps["unpadded_tokens"].tolist()


def test_clocks_that_cannot_be_right_are_told(tmp_path: Path) -> None:
    run = make_up(1)
    far = make_up(1, host="box-2")
    (engine,) = sidecar(tmp_path / "a", run, ENGINE, run.said, Recorder())
    (worker,) = sidecar(tmp_path / "b", far, WORKER, far.said, Recorder(off=-700_000))
    done = parse_session([engine, worker], tmp_path / "out")
    apart = done.metadata.clock.steps
    assert apart is not None
    assert apart.early == run.steps
    assert any("seem to begin before they were scheduled" in w for w in done.warnings)
