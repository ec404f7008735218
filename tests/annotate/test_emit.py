from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from listsink import ListSink
from places import ROOT

from profilemate import schema
from profilemate.annotate import emit
from profilemate.annotate.emit import Emitter
from profilemate.annotate.hook import HookStatus
from profilemate.annotate.identity import Identity
from profilemate.schema import KINDS

ALLOC = KINDS["kv.alloc"].encode


def emitter_of(sink: ListSink) -> Emitter:
    return Emitter(lambda: ([sink], ""))


def test_the_events_of_a_flush_are_one_batch_with_offsets() -> None:
    sink = ListSink()
    emitter = emitter_of(sink)
    emitter.add(ALLOC, 100, 103, (0, 1, [7], None))
    emitter.add(ALLOC, 200, 201, (0, 2, [8, 9], "r"))
    emitter.flush()
    emitter.flush()
    (text,) = sink.messages
    message = schema.decode(text)
    assert message is not None
    assert message.seq == 1
    assert message.t is not None
    first, second = message.events
    assert first.values == {"ago": message.t - 100, "dur": 3, "pool": 0, "used": 1, "ids": (7,)}
    assert second.values["ago"] == message.t - 200
    assert second.values["req"] == "r"


def test_a_long_buffer_leaves_as_several_batches_in_order() -> None:
    sink = ListSink()
    emitter = emitter_of(sink)
    for i in range(2000):
        emitter.add(ALLOC, i, i, (0, i, [i], f"request-{i}"))
    emitter.flush()
    assert max(map(len, sink.messages)) <= schema.MAX_MESSAGE
    assert [e.values["used"] for e in sink.events()] == list(range(2000))
    assert [schema.decode(m).seq for m in sink.messages] == list(  # type: ignore[union-attr]
        range(1, len(sink.messages) + 1)
    )


def test_one_event_that_is_too_long_is_cut() -> None:
    sink = ListSink()
    emitter = emitter_of(sink)
    ids = list(range(0, 60_000, 3))
    emitter.add(ALLOC, 1, 1, (0, 5, [1], None))
    emitter.add(ALLOC, 1, 1, (0, 5, ids, None))
    emitter.flush()
    assert max(map(len, sink.messages)) <= schema.MAX_MESSAGE
    assert [e.values["ids"] for e in sink.events()] == [(1,), tuple(ids)]


def test_a_buffer_that_no_step_empties_empties_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit, "MAX_BUFFERED", 3)
    sink = ListSink()
    emitter = emitter_of(sink)
    for i in range(7):
        emitter.add(ALLOC, i, i, (0, i, [i], None))
    assert len(sink.messages) == 2


def test_without_a_sink_it_says_so_once_and_switches_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emitter = Emitter(lambda: ([], "no tool is attached"))
    emitter.add(ALLOC, 1, 1, (0, 5, [1], None))
    emitter.flush()
    emitter.push("x")
    assert not emitter.active
    assert capsys.readouterr().err.count("no tool is attached") == 1


def test_the_session_comes_first_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    monkeypatch.setattr(emit, "monotonic_ns", lambda: clock[0])
    sink = ListSink()
    identity = Identity(graphs=False)
    status = [HookStatus("a", "installed", "m:C.a"), HookStatus("b", "skipped", why="C has no b")]
    emitter = Emitter(lambda: ([sink], ""), lambda: status, identity)
    emitter.flush()
    assert sink.messages == []  # nobody knows yet what this process is
    identity.saw_engine(None)
    for now in (0, emit.SESSION_EVERY_NS - 1, emit.SESSION_EVERY_NS, 2 * emit.SESSION_EVERY_NS):
        clock[0] = now
        emitter.flush()
    assert len(sink.messages) == 3
    session = sink.events("session")[0].values
    assert session["role"] == "engine"
    assert session["pid"] == os.getpid()
    assert session["mono_ns"] == 0
    assert session["graphs"] is False
    assert session["python"] == sys.version.split()[0]
    hooks = [e.values for e in sink.events("hook")[:2]]
    assert [(h["name"], h["status"], h.get("why")) for h in hooks] == [
        ("a", "installed", None),
        ("b", "skipped", "C has no b"),
    ]


@pytest.mark.parametrize(
    ("rank", "expected"), [(0, (0, 0)), (1, (0, 1)), (2, (1, 0)), (7, (1, 1)), (None, (None, None))]
)
def test_ranks_follow_vllm_s_order(rank: int | None, expected: tuple[int, int]) -> None:
    class Config:
        tensor_parallel_size = 2
        pipeline_parallel_size = 2
        data_parallel_rank = 3

    identity = Identity()
    assert identity.saw_worker(rank, Config())
    assert not identity.saw_worker(rank, Config())
    fields = dict(
        zip([f.name for f in KINDS["session"].fields], identity.session(0, 0), strict=True)
    )
    assert (fields["pp"], fields["tp"]) == expected
    assert (fields["role"], fields["dp"]) == ("worker", 3)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_is_buffered_leaves_at_exit(tmp_path: Path, method: str) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        """
import multiprocessing, os, sys
from profilemate.annotate.emit import Emitter
from profilemate.schema import KINDS

class Sink:
    name, scope = "pipe", "always"
    def mark(self, text): os.write(1, (text.partition(" | ")[2] + "\\n").encode())
    def push(self, text): pass
    def pop(self): pass
    def flush(self): pass

def work(name):
    emitter = Emitter(lambda: ([Sink()], ""))
    emitter.push("opens the sinks")
    emitter.add(KINDS["kv.reset"].encode, 0, 0, (int(name), 0, True))

if __name__ == "__main__":
    work("1")
    context = multiprocessing.get_context(sys.argv[1])
    child = context.Process(target=work, args=("2",))
    child.start()
    child.join()
"""
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script, method], env=env, capture_output=True, text=True, check=True
    )
    pools = [schema.decode_event(line).values["pool"] for line in done.stdout.splitlines()]
    assert pools == [2, 1]
