"""Several recorders, one run: every message once, everything on one clock."""

from __future__ import annotations

import itertools
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from built_tables import build_tables
from frames import kv_frame
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from sidecars import (
    ENGINE,
    WORKER,
    MadeUp,
    Recorder,
    Said,
    make_up,
    nsys,
    sidecar,
    torch_trace,
)

from profilemate.parse.pipeline import read_trace
from profilemate.parse.tables import TABLES
from profilemate.parse.trace.ranks import split_ranks
from profilemate.parse.trace.trace import Trace

MINUTE = 60_000_000_000
TIMES = ("seconds", "fine_seconds", "milliseconds", "fine_milliseconds", "ratio")
# Of a session by itself, and which recording it was.
OTHER = {"ranks": ("events", "recording", "replay_on", "files")}


def timeless(trace: Trace) -> dict[str, pd.DataFrame]:
    """All tables of all ranks, without times."""
    found: dict[str, pd.DataFrame] = {}
    for rank in split_ranks(trace):
        for name, frame in build_tables(rank.trace, run=trace).items():
            out = [c.name for c in TABLES[name].columns if c.spelling in TIMES]
            out = [c for c in (*out, *OTHER.get(name, ())) if c in frame]
            found[f"{rank.rank.folder} {name}"] = frame.drop(columns=out)
    return found


def assert_same(a: dict[str, pd.DataFrame], b: dict[str, pd.DataFrame]) -> None:
    assert list(a) == list(b)
    for name, frame in a.items():
        pd.testing.assert_frame_equal(frame, b[name], obj=name)


def everything(folder: Path, run: MadeUp, recorder: Recorder) -> Path:
    return nsys(folder / "all.sqlite", run, run.said, recorder)


# ------------------------------------------------------------------ the witness of the witness


def test_one_recording_of_the_made_up_run_is_right(tmp_path: Path) -> None:
    run = make_up(3, steps=80, workers=2)
    trace = read_trace([everything(tmp_path, run, Recorder(off=3))])
    (pool,) = run.pools
    kv = kv_frame(trace)
    assert list(kv["used"]) == [used for _, used in pool.usage]
    assert [len(trace.frames[n]) for n in ("sched.step", "step")] == [run.steps, 2 * run.steps]
    steps = build_tables(split_ranks(trace)[0].trace)["cuda_graph_steps"]
    assert list(steps["step"]) == list(range(1, run.steps + 1))
    assert list(steps["scheduled_tokens"]) == list(steps["unpadded_tokens"])
    assert steps["kv_blocks_evicted"].sum() == len(pool.evictions) > 0
    assert steps["kv_blocks_allocated"].sum() == pool.allocations


def test_blocks_in_use_after_each_step_are_the_model_s(tmp_path: Path) -> None:
    run = make_up(5, steps=60)
    trace = read_trace([everything(tmp_path, run, Recorder())])
    expected: list[int] = []
    used = None
    for message in run.of(ENGINE):  # by hand: the last usage said up to the end of each batch
        for event in message.events:
            used = event.values.get("used", used)
            if event.kind == "sched.step":
                expected.append(-1 if used is None else int(str(used)))
    steps = build_tables(trace)["cuda_graph_steps"]
    found = steps["kv_blocks_used"].fillna(-1).tolist()
    # Before the first operation only the pool itself has said anything.
    first = next(i for i, n in enumerate(found) if n >= 0)
    assert found[first:] == expected[first:]
    assert first < 10


# ------------------------------------------------------------------ messages heard twice


def test_a_sidecar_and_a_torch_trace_say_the_same(tmp_path: Path) -> None:
    run = make_up(7)
    alone = read_trace([everything(tmp_path / "one", run, Recorder())])
    folder = tmp_path / "session"
    # The wall clock was set by two minutes between the two.
    sidecar(folder / "markers", run, ENGINE, run.said, Recorder(seed=1))
    sidecar(folder / "markers", run, WORKER, run.said, Recorder(seed=2))
    trace_ = torch_trace(
        folder / "rank0.pt.trace.json.gz", run, WORKER, run.said, Recorder(off=2 * MINUTE, seed=3)
    )
    trace = read_trace([folder])
    assert_same(
        {n: f for n, f in timeless(alone).items() if "cuda_graph" not in n},
        {n: f for n, f in timeless(trace).items() if "cuda_graph" not in n},
    )
    steps = build_tables(trace)["cuda_graph_steps"]
    assert list(steps["step"]) == list(range(1, run.steps + 1))
    graphs = sum(number % 3 > 0 for number in range(1, run.steps + 1))
    assert steps["launches"].sum() == len(run.launches[WORKER]) == graphs
    assert (steps["launches"] == steps["expected_launches"]).all()
    assert steps["scheduled_tokens"].equals(steps["unpadded_tokens"])
    # All of the worker's messages came twice but for the session of each recorder.
    assert sum(trace.duplicates.values()) == len(run.of(WORKER))
    by = {s.path.name: p for s, p in zip(trace.sources, trace.placements, strict=True)}
    assert by[trace_.name].how == "wall clock"  # it has the GPU's times: it stays
    for name, placed in by.items():
        if name != trace_.name:
            assert placed.offset is not None
            assert abs(placed.offset - 2 * MINUTE) < 50_000
            assert placed.error is not None
            assert placed.error < 20_000


def true_times(run: MadeUp, kind: str) -> list[int]:
    """When events of a kind began, by the monotonic clock."""
    found = [m.t - int(str(e.values["ago"])) for m in run.said for e in m.events if e.kind == kind]
    return sorted(found)


@pytest.mark.parametrize("drift", [0.0, 40e-6])
def test_everything_is_on_one_clock_whatever_the_wall_clocks_say(
    tmp_path: Path, drift: float
) -> None:
    run = make_up(11, steps=400)
    sidecar(tmp_path / "markers", run, ENGINE, run.said, Recorder(off=-5 * MINUTE, seed=1))
    heavy = Recorder(off=MINUTE, drift=drift, seed=2)
    torch_trace(tmp_path / "w.pt.trace.json", run, WORKER, run.said, heavy)
    trace = read_trace([tmp_path])
    assert trace.start_unix_ns is not None
    for kind in ("sched.step", "step"):
        truth = [heavy.wall(t) - trace.start_unix_ns for t in true_times(run, kind)]
        error = np.abs(trace.frames[kind]["ts"].to_numpy() - np.array(truth))
        # Between two messages of a second apart a clock may drift away and come back.
        assert error.max() < 20_000 + drift * 500_000_000, kind
    # Launches lie where they lay: GPU times are nobody's to change.
    (launches,) = run.launches.values()
    truth = [heavy.wall(t) - trace.start_unix_ns for t, _ in launches]
    assert np.abs(trace.launches["ts"].to_numpy() - np.array(truth)).max() < 1000


SINKS = ("sidecar", "torch", "nsys")


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, list[list[int]], tuple[int, int, int]]:
    seed = draw(st.integers(0, 50))
    who = st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)
    offs = st.sampled_from([0, 3_000_000, -2_000_000, 400_000_000])
    return seed, draw(st.lists(who, min_size=7, max_size=7)), draw(st.tuples(offs, offs, offs))


@settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],  # a smaller split is no easier to read
)
@given(splits())
# Wall clocks that differ by more than the run took.
@example(
    (24, [[2], [1], [1], [2], [2], [1, 2, 0], [0, 2, 1]], (3_000_000, 400_000_000, 400_000_000))
)
def test_any_split_over_any_recorders_gives_the_same_tables(
    tmp_path: Path, split: tuple[int, list[list[int]], tuple[int, int, int]]
) -> None:
    seed, who, offs = split
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    run = make_up(seed, steps=9, workers=2)
    alone = timeless(read_trace([everything(tmp_path / "one", run, Recorder())]))
    heard: list[list[Said]] = [[], [], []]
    for message, listeners in zip(run.said, itertools.cycle(who), strict=False):
        for listener in listeners:
            heard[listener].append(message)
    paths: list[Path] = []
    folder = tmp_path / "many"
    for pid in run.pids:
        if any(m.pid == pid for m in heard[0]):
            paths += sidecar(folder, run, pid, heard[0], Recorder(offs[0], seed=1))
        if any(m.pid == pid for m in heard[1]):
            path = folder / f"{pid}.pt.trace.json"
            paths.append(
                torch_trace(path, run, pid, heard[1], Recorder(offs[1], seed=2), gpu=False)
            )
    if heard[2]:
        paths.append(nsys(folder / "run.sqlite", run, heard[2], Recorder(offs[2], seed=3)))
    random.Random(seed).shuffle(paths)
    merged = read_trace(paths)
    assert_same(alone, timeless(merged))
    assert merged.lost_batches == {}
    assert sum(merged.duplicates.values()) == sum(map(len, heard)) - len(run.said)


def test_the_same_text_again_is_matched_one_for_one(tmp_path: Path) -> None:
    """A drafter's launches have one text a step, and those of dummy steps one for all."""
    from build import Stored, mark
    from decoded import decode_recordings

    from profilemate.parse.recording.contract import SourceInfo, SourceKind

    text = "pm1.graph.replay mode=FULL num_tokens=8 step=5"
    dummy = "pm1.graph.replay mode=FULL num_tokens=8 dummy=True"
    clock = "pm1.batch t=1000 seq=1 | preempt"
    first = [mark(1000, clock), *(mark(5000 + i * 90, text, dur=5) for i in range(3))]
    first += [mark(10_000_000 * i, dummy, dur=5) for i in range(1, 6)]
    late = [mark(1040, clock), *(mark(5030 + i * 90, text, dur=5) for i in range(1, 3))]
    late += [mark(10_000_000 * i + 700, dummy, dur=5) for i in range(4, 9)]
    infos = [
        SourceInfo(Path(kind.name), kind, 0, start_unix_ns=10**18)
        for kind in (SourceKind.TORCH, SourceKind.NSYS_SQLITE)
    ]
    trace = decode_recordings([Stored(first, infos[0]), Stored(late, infos[1])])
    replays = trace.frames["graph.replay"]
    assert (replays["step"] == 5).sum() == 3
    assert replays["dummy"].sum() == 8
    assert len(trace.frames["preempt"]) == 1


# ------------------------------------------------------------------ losses


def test_a_batch_that_one_recorder_lost_and_another_has_is_not_lost(tmp_path: Path) -> None:
    run = make_up(2)
    recorder = Recorder()
    (path,) = sidecar(tmp_path / "a", run, ENGINE, run.said, recorder)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:10], *lines[13:]]))
    assert read_trace([path]).lost_batches == {ENGINE: 3}
    trace_ = torch_trace(tmp_path / "w.pt.trace.json", run, ENGINE, run.said, recorder, gpu=False)
    together = read_trace([path, trace_])
    assert together.lost_batches == {}
    assert len(together.frames["sched.step"]) == run.steps


@pytest.mark.parametrize("packed", [False, True])
def test_a_sidecar_of_a_killed_process(tmp_path: Path, packed: bool) -> None:
    run = make_up(4)
    (path,) = sidecar(tmp_path, run, ENGINE, run.said, Recorder(), end=False, packed=packed)
    whole = read_trace([path])
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * 2 // 3])
    cut = read_trace([path])
    assert 0 < len(cut.frames["sched.step"]) < len(whole.frames["sched.step"]) == run.steps
    kept = len(cut.frames["sched.step"])
    assert list(cut.frames["sched.step"]["step"]) == list(range(1, kept + 1))
    assert cut.sources[0].notes


def test_segments_are_one_sidecar(tmp_path: Path) -> None:
    run = make_up(9, steps=40)
    whole = timeless(read_trace(sidecar(tmp_path / "one", run, ENGINE, run.said, Recorder())))
    paths = sidecar(tmp_path / "many", run, ENGINE, run.said, Recorder(), segments=4)
    assert_same(whole, timeless(read_trace([tmp_path / "many"])))
    # The second is gone: what was in it is missing, and that is said.
    paths[1].unlink()
    holed = read_trace([tmp_path / "many"])
    assert len(split_ranks(holed)) == 1
    assert len(holed.frames["sched.step"]) < run.steps
    assert any(".2.trace.json" in n for source in holed.sources for n in source.notes)


# ------------------------------------------------------------------ the GPU


def test_gpu_work_that_two_recordings_hold_counts_once(tmp_path: Path) -> None:
    run = make_up(6)
    first = torch_trace(tmp_path / "a.pt.trace.json", run, WORKER, run.said, Recorder())
    alone = read_trace([first])
    again = Path(shutil.copy(first, tmp_path / "copy.pt.trace.json"))
    both = read_trace([first, again])
    assert len(both.launches) == len(alone.launches) > 0
    assert len(both.gpu) == len(alone.gpu)
    assert_same(timeless(alone), timeless(both))
    assert any("only that of the first is counted" in note for note in both.notes)


def test_two_windows_of_one_profiler_both_count(tmp_path: Path) -> None:
    run = make_up(6, steps=30)
    middle = run.said[len(run.said) // 2].t
    early, late = ([s for s in run.said if (s.t < middle) is first] for first in (True, False))
    one = torch_trace(
        tmp_path / "1.pt.trace.json",
        run,
        WORKER,
        early,
        Recorder(),
        among=lambda t: t < middle - 3_000_000,
    )
    two = torch_trace(
        tmp_path / "2.pt.trace.json",
        run,
        WORKER,
        late,
        Recorder(seq=900),
        among=lambda t: t > middle + 3_000_000,
    )
    trace = read_trace([one, two])
    kept = [t for t, _ in run.launches[WORKER] if abs(t - middle) > 3_000_000]
    assert len(trace.launches) == len(kept) > 10
    assert not trace.notes
    assert len(split_ranks(trace)) == 1


def test_equal_numbers_on_two_hosts_without_any_message(tmp_path: Path) -> None:
    """Two nodes record a vLLM without profilemate; in its container each worker is process 4001."""
    paths = []
    for seed in (1, 2):
        run = make_up(seed)
        recorder = Recorder(off=seed * 1_300_000)
        path = torch_trace(tmp_path / f"{seed}.pt.trace.json", run, WORKER, run.said, recorder)
        text = path.read_text().replace("pm1.step ", "execute_context_0(0)_generation_4(4) ")
        paths.append(path)
        path.write_text(text.replace("pm1.", "x."))
    alone = [read_trace([path]) for path in paths]
    both = read_trace(paths)
    assert len(both.launches) == sum(len(t.launches) for t in alone) > 0
    assert len(both.gpu) == sum(len(t.gpu) for t in alone)
    assert len(split_ranks(both)) == 2
    steps = [build_tables(r.trace)["cuda_graph_steps"] for r in split_ranks(both)]
    for one, trace in zip(steps, alone, strict=True):
        expected = build_tables(trace)["cuda_graph_steps"]
        assert set(one["pid"]) == {WORKER}
        columns = ["launches", "gpu_records", "graph_gpu_busy_ms"]
        pd.testing.assert_frame_equal(one[columns], expected[columns])
    (tmp_path / "copy").mkdir()
    copy = Path(shutil.copy(paths[0], tmp_path / "copy"))
    twice = read_trace([paths[0], copy])
    assert len(twice.launches) == len(alone[0].launches)
    pd.testing.assert_frame_equal(twice.frames["step"], alone[0].frames["step"])
    (note,) = (n for n in twice.notes if "only that of the first is counted" in n)
    assert f"in {paths[0]} and in {copy}" in note  # of one name: where they are
