"""Processes and ranks: counts must not be multiplied, and nobody may be lost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from built_tables import build_tables
from frames import At, at, kv_frame, trace_of

from profilemate.parse.pipeline import write_session
from profilemate.parse.session.describe import describe, session_id
from profilemate.parse.session.metadata import Metadata
from profilemate.parse.tables.pools import pools
from profilemate.parse.trace.ranks import Rank, processes_of, split_ranks
from profilemate.parse.trace.trace import Trace


def engine(pid: int, dp: int | None, start: int = 0) -> list[At]:
    return [
        at(start, "session", pid=pid, role="engine", dp=dp, host="h", faults=0, vllm="0.32.0"),
        at(start, "kv.pool", pid=pid, pool=0, num_blocks=10, used=0),
        at(start + 10, "kv.alloc", pid=pid, pool=0, used=1, ids=(pid,), req="r"),
        at(start + 20, "sched.step", pid=pid, step=1, num_tokens=5, num_reqs=1),
        at(start + 30, "hook", pid=pid, name="BlockPool.touch", status="installed", target="t"),
    ]


def worker(pid: int, dp: int, pp: int, tp: int, start: int = 0) -> list[At]:
    return [
        at(start, "session", pid=pid, role="worker", dp=dp, pp=pp, tp=tp, faults=0),
        at(start + 25, "step", pid=pid, step=1, mode="FULL", num_tokens=8, reqs=1, dur=5),
        at(start + 26, "hook", pid=pid, name="BlockPool.touch", status="waiting", why="not here"),
    ]


def two_by_two() -> Trace:
    events = [*engine(1, 0), *engine(2, 1)]
    for dp in (0, 1):
        for tp in (0, 1):
            events += worker(10 + 2 * dp + tp, dp, 0, tp)
    return trace_of(events, start_unix_ns=1_700_000_000_000_000_000)


def test_each_rank_gets_its_own_events_and_the_lead_comes_first() -> None:
    ranks = split_ranks(two_by_two())
    assert [r.rank for r in ranks] == [
        Rank(0, 0, 0),
        Rank(0, 0, 1),
        Rank(1, 0, 0),
        Rank(1, 0, 1),
    ]
    assert [[p.pid for p in r.processes] for r in ranks] == [[1, 10], [11], [2, 12], [13]]
    lead = ranks[0].trace
    assert kv_frame(lead)["ids"].tolist() == [(1,)]
    assert lead.counts["step"] == 1
    assert kv_frame(ranks[1].trace).empty
    # Each has the engine of its data-parallel rank.
    assert ranks[1].trace.engine is lead
    assert ranks[3].trace.engine is ranks[2].trace
    assert (lead.engine, ranks[2].trace.engine) == (None, None)


def test_two_servers_in_one_recording_are_kept_apart() -> None:
    ranks = split_ranks(trace_of([*engine(5, 0, 100), *engine(3, 0), *worker(4, 0, 0, 0)]))
    assert [(r.rank, [p.pid for p in r.processes]) for r in ranks] == [
        (Rank(0, 0, 0, 0), [3, 4]),
        (Rank(0, 0, 0, 1), [5]),
    ]
    assert ranks[1].rank.folder == "dp0_pp0_tp0_1"
    # The first one's ranks come first, whatever their numbers.
    further = split_ranks(trace_of([*engine(3, 0), *engine(4, 1), *engine(5, 0, 100)]))
    assert [r.rank for r in further] == [Rank(0, 0, 0), Rank(1, 0, 0), Rank(0, 0, 0, 1)]


def test_a_process_that_never_said_who_it_is_is_known_by_its_events() -> None:
    trace = trace_of(
        [
            at(1, "kv.alloc", pid=7, pool=0, used=1, ids=(1,)),
            at(2, "step", pid=8, step=3),
        ]
    )
    assert [(p.pid, p.role) for p in processes_of(trace)] == [(7, "engine"), (8, "worker")]
    (rank,) = split_ranks(trace)
    assert (rank.rank, rank.rank.folder) == (Rank(0, 0, 0, unknown=True), "process_1")


def test_an_empty_recording_has_no_ranks() -> None:
    assert split_ranks(trace_of([])) == []


def test_a_session_of_several_ranks_on_disk(tmp_path: Path) -> None:
    session = write_session(two_by_two(), tmp_path / "s")
    folders = sorted(p.name for p in (session.path / "ranks").iterdir())
    assert folders == ["dp0_pp0_tp1", "dp1_pp0_tp0", "dp1_pp0_tp1"]
    usage = pd.read_csv(session.path / "cuda_graph_usage.csv")
    assert usage["replay_count"].tolist() == [1], "a step of two ranks is one step"
    other = pd.read_csv(session.path / "ranks" / "dp1_pp0_tp0" / "kv_block_events.csv")
    assert other["blocks"].tolist() == [2]
    facts = json.loads((session.path / "metadata.json").read_text())
    assert [p["rank"] for p in facts["processes"]] == [
        "dp0_pp0_tp0",
        "dp0_pp0_tp0",
        "dp0_pp0_tp1",
        "dp1_pp0_tp0",
        "dp1_pp0_tp0",
        "dp1_pp0_tp1",
    ]
    assert session.summary["processes"].count("worker") == 4


def test_metadata_says_what_is_installed_somewhere_and_why_files_are_empty() -> None:
    trace = two_by_two()
    ranks = split_ranks(trace)
    tables = build_tables(ranks[0].trace)
    rows = {f"{name}.csv": len(table) for name, table in tables.items()}
    facts = describe(trace, ranks, rows, Path("out"))
    assert facts.hooks.installed == {"BlockPool.touch": "t"}
    assert facts.kv_cache_tracking is True
    assert facts.versions["vllm"] == "0.32.0"
    assert "kv_preemptions.csv" in facts.empty_files
    assert all(facts.empty_files.values())
    assert str(facts.session_id).startswith("session_2023111")


def test_a_hook_that_says_neither_where_nor_why() -> None:
    trace = trace_of([*engine(1, 0), at(90, "hook", pid=1, name="X.y", status="skipped")])
    ranks = split_ranks(trace)
    facts = describe(trace, ranks, {}, Path("out"))
    assert facts.hooks.skipped == {"X.y": ""}


def test_empty_files_are_named_as_they_lie_in_the_session(tmp_path: Path) -> None:
    session = write_session(trace_of([]), tmp_path / "s")
    written = {p.name for p in session.path.iterdir()}
    empty = json.loads((session.path / "metadata.json").read_text())["empty_files"]
    assert set(empty) <= written
    assert set(empty) == {*(f for f in written if f.endswith(".csv")), "kv_cache_summary.txt"}


def test_faults_and_losses_are_told_to_the_user() -> None:
    events = engine(1, 0)
    events[0].event.values["faults"] = 3
    trace = replace(trace_of(events), lost_batches={1: 2}, broken=1, unknown={"kv.new": 4})
    ranks = split_ranks(trace)
    warnings = {w.id: w.text for w in describe(trace, ranks, {}, Path("out")).warnings}
    assert warnings == {
        "events-lost": "2 batches of events are missing from the recording: counts are too low",
        "messages-unread": "1 message could not be read and is left out",
        "events-unknown": "Events of a newer profilemate are left out: kv.new",
        "hooks-failed": "profilemate's own hooks failed 3 times: please report vLLM's log",
    }


def test_a_recording_without_a_clock_has_a_name_all_the_same() -> None:
    assert session_id(trace_of([])) == "session_unknown_start"


def test_a_pool_that_is_not_the_gpu_s_has_no_summary(tmp_path: Path) -> None:
    trace = trace_of(
        [
            at(0, "kv.pool", pool=0, num_blocks=10, used=0, medium="CPU"),
            at(1, "kv.alloc", pool=0, used=1, ids=(1,)),
        ]
    )
    session = write_session(trace, tmp_path / "s")
    assert session.summary["kv_cache"] is None
    assert session.rows["kv_block_events"] == 1


def test_workers_go_with_the_engine_that_they_name_whichever_came_first() -> None:
    """Two servers of dense engines, whose workers come in the other order."""
    events = [
        at(0, "session", pid=11, role="engine", host="h", dp=0, engine_pid=11),
        at(1, "sched.step", pid=11, step=1, num_tokens=1, num_reqs=1, new=1, running=1, waiting=0),
        at(2, "session", pid=12, role="engine", host="h", dp=0, engine_pid=12),
        at(3, "sched.step", pid=12, step=1, num_tokens=1, num_reqs=1, new=1, running=1, waiting=0),
        at(4, "session", pid=22, role="worker", host="h", dp=0, pp=0, tp=0, engine_pid=12),
        at(5, "session", pid=21, role="worker", host="h", dp=0, pp=0, tp=0, engine_pid=11),
        at(6, "session", pid=32, role="worker", host="h", dp=0, pp=0, tp=1, engine_pid=12),
        *(at(7, "step", pid=pid, step=1, dur=5) for pid in (21, 22, 32)),
    ]
    for order in (events, [*events[:4], *events[5:7], events[4], *events[7:]]):
        found = split_ranks(trace_of(order))
        members = {r.rank.folder: {p.pid for p in r.processes} for r in found}
        assert members == {
            "dp0_pp0_tp0": {11, 21},
            "dp0_pp0_tp0_1": {12, 22},
            "dp0_pp0_tp1_1": {32},
        }


def test_pid_and_host_together_name_an_engine() -> None:
    events = [
        at(0, "session", pid=11, role="engine", host="a", dp=0, engine_pid=11),
        at(1, "session", pid=21, role="worker", host="b", dp=1, pp=0, tp=0, engine_pid=11),
    ]
    assert [r.rank.folder for r in split_ranks(trace_of(events))] == ["dp0_pp0_tp0", "dp1_pp0_tp0"]


def described(events: list[At]) -> Metadata:
    trace = trace_of(events)
    return describe(trace, split_ranks(trace), {}, Path("out"))


def test_the_configuration_is_the_engine_s_and_what_only_the_worker_knows() -> None:
    early: dict[str, Any] = {"max_num_seqs": 64, "gpu_memory": "0.9", "prefix_caching": True}
    facts = described(
        [
            *engine(1, 0),
            *worker(2, 0, 0, 0),
            at(1, "config", pid=1, **early),
            at(2, "config", pid=2, max_num_seqs=1, cudagraph_mode="FULL", capture_sizes="1,2"),
            at(3, "config", pid=1, **{**early, "max_num_seqs": 32}),
            at(4, "config", pid=1, engine=1, max_num_seqs=7),
            *engine(3, 1),
            at(5, "config", pid=3, max_num_seqs=9, policy="fcfs"),
        ]
    )
    assert facts.config == {
        "max_num_seqs": 32,
        "gpu_memory_utilization": 0.9,
        "enable_prefix_caching": True,
        "cudagraph_mode": "FULL",
        "cudagraph_capture_sizes": "1,2",
    }
    again = Metadata.from_json(json.loads(json.dumps(facts.to_json())))
    assert again.config == facts.config
    assert "config" not in described([*engine(1, 0)]).to_json()


def test_what_a_process_could_not_see_is_said_of_that_process() -> None:
    facts = described(
        [
            *engine(1, 0),
            *worker(2, 0, 0, 0),
            *engine(3, 1),
            at(101, "hook", pid=1, name="BlockPool.touch", status="installed", target="x"),
            at(102, "hook", pid=1, name="BlockPool.touch", status="installed", why="E", faults=3),
            at(102, "hook", pid=3, name="BlockPool.touch", status="installed", target="x"),
            at(102, "hook", pid=2, name="CUDAGraph.replay", status="failed", why="no method"),
            at(102, "hook", pid=2, name="BlockPool.touch", status="off", why="kv hooks are off"),
        ]
    )
    assert [(u.pid, u.kind, u.why) for u in facts.unseen] == [
        (1, "kv.touch", "the hook BlockPool.touch: failed 3 times (E)"),
        (2, "step.end", "the hook CUDAGraph.replay: no method"),
        (2, "graph.replay", "the hook CUDAGraph.replay: no method"),
    ]
    again = Metadata.from_json(json.loads(json.dumps(facts.to_json())))
    assert again.unseen == facts.unseen


def test_the_standard_pool_is_the_scheduler_s_whichever_came_first() -> None:
    """With VLLM_USE_SIMPLE_KV_OFFLOAD vLLM makes the CPU's pool first, and says no medium."""
    trace = trace_of(
        [
            at(0, "kv.pool", pool=0, num_blocks=182, used=0),
            at(0, "kv.pool", pool=1, num_blocks=23, used=0, owner="scheduler"),
            at(1, "kv.alloc", pool=0, ids=(1,), used=1),
            at(2, "kv.alloc", pool=1, ids=(1, 2), used=2),
        ]
    )
    found = pools(trace)
    assert found.numbers[found.standard].tolist() == [1]
    assert found.further.tolist() == [False, False]


def test_a_process_of_several_engines_says_what_its_tables_are_of() -> None:
    one = [*engine(1, 0), at(1, "config", pid=1, max_num_seqs=4)]
    assert described(one).notes == ()
    (note,) = described([*one, at(2, "config", pid=1, engine=1, max_num_seqs=4)]).notes
    assert note.startswith("Process 1 ran 2 engines: the standard KV cache files are of the first")
