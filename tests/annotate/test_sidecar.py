"""The sidecar, read back as what it claims to be: JSON, by Python's own parser."""

from __future__ import annotations

import fcntl
import gzip
import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from profilemate import schema
from profilemate.annotate.sinks.segments import SEGMENTS
from profilemate.annotate.sinks.sidecar import FLUSH_S, SidecarSink
from profilemate.schema import KINDS

SESSION = KINDS["session"].encode(0, 0, "worker", 7, "host", 1, 2, 3)


def batch(seq: int, *events: str) -> str:
    return schema.encode_batch(events or (f"kv.alloc pool=0 used={seq}",), t=seq, seq=seq)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., SidecarSink]]:
    """Makes sinks that write to `tmp_path`, and closes them."""
    (tmp_path / "markers").mkdir()
    made = []

    def make(**options: Any) -> SidecarSink:
        made.append(SidecarSink(lambda: tmp_path, **options))
        return made[-1]

    yield make
    for sink in made:
        sink.close()


def files(place: Path) -> list[Path]:
    return sorted((place / "markers").iterdir(), key=lambda f: f.stat().st_ctime_ns)


def text_of(file: Path) -> str:
    """What a file holds, however it was cut off."""
    data = file.read_bytes()
    if file.suffix == ".gz":
        data = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data)
    return data.decode("ascii")


def events(file: Path) -> list[dict[str, Any]]:
    """The events of a file; of one that was cut off, all but a last line that is not whole."""
    text = text_of(file)
    if not text.endswith("\n]\n"):
        text = text[: text.rindex("\n") + 1].rstrip(",\n") + "\n]"
    loaded: list[dict[str, Any]] = json.loads(text, parse_float=Decimal)
    return loaded


def messages(file: Path) -> list[str]:
    return [e["name"] for e in events(file) if e["ph"] != "M"]


def test_messages_come_back_byte_for_byte(make: Callable[..., SidecarSink], tmp_path: Path) -> None:
    sink = make(interval=1)
    before = time.time_ns()
    first = batch(1, SESSION, "kv.alloc pool=0 ids=1-5,7")
    sink.mark(first)
    sink.push("pm1.step step=1 mode=FULL")
    sink.push("pm1.graph.replay mode=FULL")
    time.sleep(0.002)
    sink.pop()
    sink.pop()
    after = time.time_ns()
    sink.close()
    (file,) = files(tmp_path)
    found = json.loads(file.read_text(), parse_float=Decimal)  # whole, as it stands
    assert [e["ph"] for e in found] == ["M", "M", "i", "X", "X", "M"]
    assert messages(file) == [first, "pm1.graph.replay mode=FULL", "pm1.step step=1 mode=FULL"]
    mark, inner, outer = found[2:5]
    for event in (mark, inner, outer):
        assert event["cat"] == "profilemate"
        assert (event["pid"], event["tid"]) == (os.getpid(), threading.get_native_id())
        # On the wall clock, in us, to the ns; 1 ms is for a clock that is being set.
        assert before - 10**6 <= event["ts"] * 1000 <= after + 10**6
        assert event["ts"] * 1000 == int(event["ts"] * 1000)
    assert outer["ts"] <= inner["ts"]
    assert inner["dur"] >= 2000
    assert outer["ts"] + outer["dur"] >= inner["ts"] + inner["dur"]
    assert found[-1]["args"] == {"messages": 3}


def test_the_head_says_who_writes_and_on_which_clocks(
    make: Callable[..., SidecarSink], tmp_path: Path
) -> None:
    # The second clock was read later than the first, however long that took.
    least = time.time_ns() - time.monotonic_ns()
    sink = make(interval=1)
    mono = time.monotonic_ns()
    most = time.time_ns() - mono
    sink.push("pm1.graph.capture mode=FULL")
    sink.pop()
    assert [f.name for f in files(tmp_path)] == [f"process_dp0_pp0_tp0_{os.getpid()}.trace.json"]
    sink.mark(batch(1, SESSION))  # now it knows who it is
    (file,) = files(tmp_path)
    assert file.name == f"worker_dp1_pp2_tp3_{os.getpid()}.trace.json"
    head, *rest = events(file)
    assert head["name"] == "profilemate_sidecar"
    wall = head["args"]["unix_ns"] - head["args"]["mono_ns"]
    assert least - 10**6 <= wall <= most + 10**6  # 1 ms is for a clock that is being set
    names = [e["args"]["name"] for e in rest if e["name"] == "process_name"]
    assert names[-1] == "profilemate: worker dp1 pp2 tp3"
    sink.mark(batch(2, SESSION.replace("role=worker", "role=engine+worker")))
    (file,) = files(tmp_path)  # and that it is both
    assert file.name == f"engine+worker_dp1_pp2_tp3_{os.getpid()}.trace.json"


def test_nothing_is_opened_before_there_is_something_to_write(
    make: Callable[..., SidecarSink], tmp_path: Path
) -> None:
    sink = make()
    sink.push("pm1.step step=1")
    sink.flush()
    assert files(tmp_path) == []
    sink.pop()
    sink.flush()
    assert len(files(tmp_path)) == 1


def test_it_is_flushed_every_so_many_operations(
    make: Callable[..., SidecarSink], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profilemate.annotate.sinks.sidecar.FLUSH_S", 60.0)
    sink = make(interval=10)
    for seq in range(3):
        sink.mark(batch(seq, "a", "b", "c"))  # three operations each
    assert files(tmp_path) == []
    sink.mark(batch(3, "d"))
    (file,) = files(tmp_path)
    assert len(messages(file)) == 4
    sink.mark(batch(4))
    assert len(messages(file)) == 4
    sink.flush()
    assert len(messages(file)) == 5


def test_what_waits_is_flushed_by_time(make: Callable[..., SidecarSink], tmp_path: Path) -> None:
    make(interval=1000).mark(batch(1))
    deadline = time.monotonic() + 300 * FLUSH_S  # the machine may be busy
    while not any(batch(1) in text_of(f) for f in files(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(FLUSH_S / 4)
    (file,) = files(tmp_path)
    assert messages(file) == [batch(1)]


def test_after_sigkill_everything_up_to_the_last_flush_is_there(tmp_path: Path) -> None:
    (tmp_path / "markers").mkdir()
    code = """
import os, signal, sys
from pathlib import Path
from profilemate.annotate.sinks import sidecar
sidecar.FLUSH_S = 60.0
sink = sidecar.SidecarSink(lambda: Path(sys.argv[1]), interval=100, packed=sys.argv[2] == "gz")
for seq in range(250): sink.mark(f"pm1.batch t={seq} seq={seq} | kv.usage pool=0 used={seq}")
os.kill(os.getpid(), signal.SIGKILL)
"""
    for how in ("plain", "gz"):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path), how], check=False)
        assert done.returncode == -9
    for file in files(tmp_path):
        assert [m.split()[1] for m in messages(file)] == [f"t={n}" for n in range(200)]


def test_packed_and_cut_anywhere_all_flushes_before_the_cut_are_there(
    make: Callable[..., SidecarSink], tmp_path: Path
) -> None:
    sink = make(interval=10**6, packed=True)
    sizes = []
    for seq in range(40):
        sink.mark(batch(seq))
        sink.flush()
        sizes.append(files(tmp_path)[0].stat().st_size)
    sink.close()
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    assert json.loads(gzip.decompress(whole))[-1]["args"] == {"messages": 40}
    for cut in random.Random(1).sample(range(sizes[0], len(whole)), 60):
        file.write_bytes(whole[:cut])
        safe = sum(size <= cut for size in sizes)
        assert messages(file)[:safe] == [batch(seq) for seq in range(safe)]


def test_the_latest_segments_are_kept_and_each_is_readable_alone(
    make: Callable[..., SidecarSink], tmp_path: Path
) -> None:
    asked = []
    cap = 64 * 1024
    sink = make(interval=1, cap=cap, renew=lambda: asked.append(True))
    written, told = [], 0
    for seq in range(2000):
        session = len(asked) > told  # the emitter says the session with its next batch
        told = len(asked)
        text = batch(seq, SESSION, "kv.usage pool=0") if session else batch(seq)
        written.append(text)
        sink.mark(text)
    sink.close()
    # Whole JSON each, as they stand; each says which one it is.
    heads = {file: json.loads(file.read_text())[0]["args"] for file in files(tmp_path)}
    kept = sorted(heads, key=lambda file: heads[file]["segment"])
    assert SEGMENTS - 1 <= len(kept) <= SEGMENTS
    assert sum(f.stat().st_size for f in kept) <= cap
    found = [messages(file) for file in kept]
    together = [m for part in found for m in part]
    assert together == written[-len(together) :]  # the latest, in order, none missing
    assert len(together) < len(written)
    assert all(" | session " in part[0] for part in found)
    numbers = [heads[file]["segment"] for file in kept]
    assert numbers == [*range(numbers[0], numbers[-1] + 1)]
    last = heads[kept[-1]]
    assert last["dropped_segments"] == numbers[0] - 1 > 0
    assert last["dropped_bytes"] > cap


def test_a_segment_does_not_wait_for_ever_for_a_session(
    make: Callable[..., SidecarSink], tmp_path: Path
) -> None:
    sink = make(interval=1, cap=32 * 1024)
    for seq in range(1000):
        sink.mark(batch(seq))
    assert sum(f.stat().st_size for f in files(tmp_path)) <= 32 * 1024 * 1.1


def _child(place: str, seq: int) -> None:
    sink = SidecarSink(lambda: Path(place), interval=1)
    sink.mark(batch(seq))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_each_process_has_a_file_of_its_own(method: str, tmp_path: Path) -> None:
    (tmp_path / "markers").mkdir()
    context: Any = multiprocessing.get_context(method)
    children = [context.Process(target=_child, args=(str(tmp_path), n)) for n in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    found = {f.name.rpartition("_")[2].partition(".")[0]: messages(f) for f in files(tmp_path)}
    assert found == {str(c.pid): [batch(n)] for n, c in enumerate(children)}
    for file in files(tmp_path):
        assert file.read_text().endswith("\n]\n")  # ended in order


def test_a_fork_leaves_the_parent_s_file_and_lock_to_the_parent(tmp_path: Path) -> None:
    (tmp_path / "markers").mkdir()
    code = """
import os, sys, time
from pathlib import Path
from profilemate.annotate.sinks.sidecar import SidecarSink
sink = SidecarSink(lambda: Path(sys.argv[1]), interval=2)
sink.mark("pm1.batch t=1 seq=1 | a"); sink.mark("pm1.batch t=2 seq=2 | a")
sink.mark("pm1.batch t=3 seq=3 | waits")
sink.push("pm1.step of=parent")
pid = os.fork()
if pid == 0:
    sink.pop()  # it was opened by the parent
    sink.mark("pm1.batch t=9 seq=1 | child")
    sink.flush()
    print(os.getpid(), flush=True)
    time.sleep(60)
sink.pop()
sink.flush()
os._exit(0)  # as one that is killed: the child lives on
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert parent.wait(60) == 0
        by_pid = {int(f.name.rpartition("_")[2].split(".")[0]): f for f in files(tmp_path)}
        assert messages(by_pid[child]) == ["pm1.batch t=9 seq=1 | child"]
        assert [m.split()[-1] for m in messages(by_pid[parent.pid])] == [
            "a",
            "a",
            "waits",
            "of=parent",
        ]
        with by_pid[parent.pid].open() as file:  # nobody holds it any more
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with by_pid[child].open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.kill(child, 9)
        parent.stdout.close()


def test_threads_have_ranges_of_their_own(make: Callable[..., SidecarSink], tmp_path: Path) -> None:
    sink = make(interval=5)

    def work(number: int) -> None:
        for turn in range(100):
            sink.push(f"pm1.step step={turn} of={number}")
            sink.mark(batch(turn))
            sink.pop()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    (file,) = files(tmp_path)
    ranges = [e for e in events(file) if e["ph"] == "X"]
    assert len(ranges) == 400
    assert len({(e["tid"], e["name"].split()[2]) for e in ranges}) == 4


def test_a_full_disk_ends_it_with_one_message(tmp_path: Path) -> None:
    # RLIMIT_FSIZE stands in for a full disk here; tests/e2e fills a real one.
    (tmp_path / "markers").mkdir()
    code = """
import os, resource, sys
from pathlib import Path
from profilemate.annotate.sinks.sidecar import SidecarSink
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
def run():
    sink = SidecarSink(lambda: Path(sys.argv[1]), interval=1)
    for seq in range(1000): sink.mark(f"pm1.batch t={seq} seq={seq} | kv.usage pool=0")
run()
if os.fork() == 0:
    run()  # a second process of the session: it stays silent
    os._exit(0)
os.wait()
print("served on")
"""
    # Python 3.12 and later warn of any fork beside a thread; the sink has one.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "served on\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"[profilemate] the live session {tmp_path} cannot be written: File too")
    assert "vLLM goes on" in line
    assert "PROFILEMATE_MAX_MB" in line
    for file in files(tmp_path):
        assert file.stat().st_size <= 20_000
        found = messages(file)
        assert len(found) > 100
        assert [m.split()[1] for m in found] == [f"t={n}" for n in range(len(found))]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000


def test_a_directory_that_is_gone_ends_it_with_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = SidecarSink(lambda: tmp_path / "gone", interval=1)
    for seq in range(5):
        sink.mark(batch(seq))
    sink.flush()
    sink.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "No such file or directory" in line
    assert "set PROFILEMATE_DIR" in line


def test_the_folder_may_be_moved_meanwhile(
    make: Callable[..., SidecarSink], tmp_path: Path
) -> None:
    sink = make(interval=1, cap=8 * 1024)
    sink.mark(batch(0))
    (tmp_path / "markers").rename(tmp_path / "elsewhere")
    for seq in range(1, 200):
        sink.mark(batch(seq))
    names = os.listdir(tmp_path / "elsewhere")
    assert len(names) > 1  # rotation goes on there
    (tmp_path / "elsewhere").rename(tmp_path / "markers")


def test_a_message_stands_at_the_time_that_it_says(
    make: Callable[..., SidecarSink], tmp_path: Path
) -> None:
    """So the offset between the clocks, which the head states, is that of every message."""
    sink = make(interval=1)
    said = [time.monotonic_ns() - 5_000_000 * n for n in (3, 2, 1)]
    texts = [schema.encode_batch(["kv.usage pool=0"], t=t, seq=n) for n, t in enumerate(said, 1)]
    for text in texts:
        sink.mark(text)
    long = schema.encode_batch(["kv.usage pool=0"] * 5000, t=said[-1], seq=4)
    parts = schema.split(long, number=1)
    assert len(parts) > 1
    for part in parts:
        sink.mark(part)
    sink.close()
    head, _, *rest = events(*files(tmp_path))
    offset = head["args"]["unix_ns"] - head["args"]["mono_ns"]
    times = [int(e["ts"] * 1000) - offset for e in rest if e["ph"] == "i"]
    assert times == [*said, *[said[-1]] * len(parts)]


def test_a_time_of_another_clock_is_not_believed(
    make: Callable[..., SidecarSink], tmp_path: Path
) -> None:
    sink = make(interval=1)
    before = time.time_ns() - 1_000_000
    for t in (5, time.monotonic_ns() + 10**12):
        sink.mark(schema.encode_batch(["kv.usage pool=0"], t=t, seq=1))
    sink.close()
    times = [int(e["ts"] * 1000) for e in events(*files(tmp_path)) if e["ph"] == "i"]
    assert all(before <= ts <= time.time_ns() for ts in times)
    assert len(times) == 2


def test_a_full_disk_leaves_an_end_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "markers").mkdir()
    code = """
import resource, sys
from pathlib import Path
from profilemate.annotate.sinks.sidecar import SidecarSink
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
sink = SidecarSink(lambda: Path(sys.argv[1]), interval=1)
for seq in range(1000): sink.mark(f"pm1.batch t={seq} seq={seq} | kv.usage pool=0")
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    (file,) = files(tmp_path)
    assert file.stat().st_size <= 20_000
    assert file.read_text().endswith("\n]\n")
    *_, last = events(file)
    assert last["name"] == "profilemate_end"
    assert last["args"]["stopped"] == "File too large"
    assert abs(last["args"]["unix_ns"] - file.stat().st_mtime_ns) < 60 * 10**9
    assert len(messages(file)) > 100


def test_without_a_free_descriptor_no_empty_session_is_left(tmp_path: Path) -> None:
    code = """
import os, resource, sys
from profilemate.annotate import session_dir
from profilemate.annotate.settings import Settings
from profilemate.annotate.sinks.sidecar import open_sink
settings = Settings(wanted=True, live=True, directory=sys.argv[1])
env = {}
session_dir.begin(env)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for _ in range(int(sys.argv[2])):
    os.close(held.pop())
sink, _ = open_sink(settings, env)
for seq in range(3):
    sink.mark(f"pm1.batch t={seq} seq={seq} | kv.usage pool=0")
    sink.flush()
"""
    for free in range(3):
        place = tmp_path / str(free)
        command = [sys.executable, "-c", code, str(place), str(free)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        left = sorted(p.name for p in place.iterdir()) if place.exists() else []
        written = [p for p in place.rglob("*.trace.json") if p.stat().st_size]
        assert bool(left) == bool(written), (free, left, done.stderr)
        if not left:
            assert "Too many open files" in done.stderr
