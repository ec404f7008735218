"""Who is who in foreign traces: by the name of the file, by the recorder, by labels, or unknown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profilemate.parse.pipeline import read_trace, write_session
from profilemate.parse.readers.kineto import parts
from profilemate.parse.recording.places import labelled, place_in_label, place_in_name
from profilemate.parse.tables.ranks import ranks

UNIX = 1_759_300_074_000_000_000
STEPS = 4


def events(pid: object, device: object, number: int, kernel_us: int, late_us: int = 0) -> list[Any]:
    """Steps of 8 tokens that launch one graph of one kernel each."""
    found: list[Any] = []
    for n in range(STEPS):
        t = 1_000_000 + 1000 * n + late_us
        of_host = {"ph": "X", "pid": pid, "tid": 251}
        ids = {"correlation": 10 + n}
        found += [
            {**of_host, "cat": "user_annotation", "ts": t, "dur": 100}
            | {"name": "execute_context_0(0)_generation_8(8)"},
            {**of_host, "cat": "cuda_runtime", "ts": t + 10, "dur": 20, "args": ids}
            | {"name": "cudaGraphLaunch"},
            {"ph": "X", "cat": "kernel", "name": "k", "pid": device, "tid": 7, "ts": t + 50}
            | {"dur": kernel_us, "args": {"device": number, "stream": 7, **ids}},
        ]
    return found


def trace(path: Path, found: list[Any], rank: int | None = None) -> Path:
    document: dict[str, Any] = {"schemaVersion": 1, "baseTimeNanoseconds": UNIX}
    if rank is not None:
        document["distributedInfo"] = {"backend": "nccl", "rank": rank, "world_size": 4}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**document, "traceEvents": found}))
    return path


def named(tp: int) -> str:
    return f"dp0_pp0_tp{tp}_dcp0_ep{tp}_rank{tp}.1765516700062.pt.trace.json"


def who(folder: Path, *columns: str) -> list[tuple[Any, ...]]:
    frame = ranks(read_trace([folder]))[list(columns)].astype(object)
    return [tuple(row) for row in frame.where(frame.notna(), None).itertuples(index=False)]


def test_ranks_are_those_of_the_files_names_and_the_lead_is_the_lowest(tmp_path: Path) -> None:
    for tp, pid in enumerate((5003, 5001, 5000, 5002)):
        trace(tmp_path / "t" / named(tp), events(pid, tp, tp, 60 + tp), rank=3 - tp)
    assert who(tmp_path / "t", "rank", "pid", "tp_rank", "steps", "replay_p50_ms", "files") == [
        ("dp0_pp0_tp0", 5003, 0, STEPS, 60_000, named(0)),
        ("dp0_pp0_tp1", 5001, 1, STEPS, 61_000, named(1)),
        ("dp0_pp0_tp2", 5000, 2, STEPS, 62_000, named(2)),
        ("dp0_pp0_tp3", 5002, 3, STEPS, 63_000, named(3)),
    ]
    session = write_session(read_trace([tmp_path / "t"]), tmp_path / "s")
    folders = sorted(p.name for p in (session.path / "ranks").iterdir())
    assert folders == ["dp0_pp0_tp1", "dp0_pp0_tp2", "dp0_pp0_tp3"]


def test_else_they_are_those_that_the_recorder_says(tmp_path: Path) -> None:
    for rank, name in ((2, "a.json"), (0, "b.json"), (10, "c.json")):
        trace(tmp_path / "t" / name, events(50 - rank, rank, rank, 60), rank=rank)
    assert who(tmp_path / "t", "rank", "pid", "tp_rank", "files") == [
        ("rank0", 50, None, "b.json"),
        ("rank2", 48, None, "a.json"),
        ("rank10", 40, None, "c.json"),
    ]


def test_else_they_are_numbered_and_no_rank_is_invented(tmp_path: Path) -> None:
    trace(tmp_path / "t" / "a.json", events(60, 0, 0, 60))
    trace(tmp_path / "t" / "b.json", events(50, 1, 1, 60, late_us=5))
    assert who(tmp_path / "t", "rank", "pid", "dp_rank", "tp_rank", "files") == [
        ("process_1", 60, None, None, "a.json"),
        ("process_2", 50, None, None, "b.json"),
    ]


def test_one_pid_in_two_containers_is_two_ranks(tmp_path: Path) -> None:
    """Ranks of one group launch the same, at the same times."""
    for tp in (0, 1):
        trace(tmp_path / "t" / named(tp), events(251, tp, tp, 60 + tp))
    assert who(tmp_path / "t", "rank", "pid", "steps", "graph_steps", "replay_p50_ms") == [
        ("dp0_pp0_tp0", 251, STEPS, STEPS, 60_000),
        ("dp0_pp0_tp1", 251, STEPS, STEPS, 61_000),
    ]
    assert not any("only that of the first" in note for note in read_trace([tmp_path / "t"]).notes)


@pytest.mark.parametrize("pids", [(251, 252), (251, 251)])
@pytest.mark.parametrize("in_parts", [False, True])
def test_processes_of_a_merged_file_have_ids_of_their_own(
    tmp_path: Path, pids: tuple[int, int], in_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = [
        event
        for tp, pid in enumerate(pids)
        for event in events(f"[TP{tp:02}] {pid}", f"[TP{tp:02}] {tp}", tp, 60 + tp)
    ]
    path = trace(tmp_path / "merged.json", sorted(merged, key=lambda e: e["ts"]), rank=0)
    if in_parts:
        middle = path.read_text().index('{"ph"', path.stat().st_size // 2)
        monkeypatch.setattr(parts, "cuts", lambda *_: [middle])
    assert who(path, "rank", "pid", "tp_rank", "steps", "graph_steps", "replay_p50_ms") == [
        ("dp0_pp0_tp0", pids[0], 0, STEPS, STEPS, 60_000),
        ("dp0_pp0_tp1", pids[1], 1, STEPS, STEPS, 61_000),
    ]
    found = read_trace([path])
    assert (found.launches["records"] == 1).all()
    assert not [n for source in found.sources for n in source.notes if "API calls" in n]


def test_what_a_name_says() -> None:
    assert place_in_name("dp1_pp2_tp13_dcp0_ep2_rank5.17.pt.trace.json.gz") == (1, 2, 13)
    assert place_in_name("worker_dp0_pp0_tp3_4242.trace.json") == (0, 0, 3)
    assert place_in_name("host_4242.17.pt.trace.json.gz") is None
    assert place_in_name("dp0_pp0.json") is None
    assert labelled("[TP00] 251") == ("[TP00]", 251)
    assert [labelled(pid) for pid in ("251", "-1", 251, "Spans", None)] == [None] * 5
    assert place_in_label("[TP03-DP01]") == (1, None, 3)
    assert place_in_label("host a") is None
