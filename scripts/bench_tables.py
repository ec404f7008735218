"""From messages to tables: how long a recording of many block operations takes, stage by stage.

Messages as the annotator writes them, of a pool that serves requests of many blocks each, are
decoded, made into all tables, and written. `--plain` does without pyarrow.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from profilemate import schema  # noqa: E402
from profilemate.parse.activity import ActivitySink  # noqa: E402
from profilemate.parse.decode import decode_recordings  # noqa: E402
from profilemate.parse.project import build_tables, write_session  # noqa: E402
from profilemate.parse.recording import Marker, SourceInfo  # noqa: E402
from profilemate.parse.writers import csv_session  # noqa: E402
from profilemate.schema import KINDS  # noqa: E402

BLOCKS = 20_000
STEP_NS = 10_000_000
RUNNING = 128


class Recording:
    """Messages that were made up."""

    def __init__(self, operations: int) -> None:
        self._operations = operations
        self.info = SourceInfo(
            Path("generated"), "generated", 0, start_unix_ns=1_700_000_000 * 10**9
        )

    def markers(self) -> Iterator[Marker]:
        """The messages."""
        last = 0
        for t, text in messages(self._operations):
            yield Marker(t, None, 7, 7, text)
            last = t
        self.info.window = (0, last)

    def annotations(self) -> Iterator[Marker]:
        """None."""
        return iter(())

    def activity(self, sink: ActivitySink) -> None:
        """None."""


def messages(operations: int) -> Iterator[tuple[int, str]]:
    """A pool with a free queue in vLLM's order; each request decodes, grows, and is freed."""
    rng = random.Random(1)
    free = deque(range(1, BLOCKS + 1))
    cached: set[int] = set()
    running: list[tuple[str, list[int]]] = []
    encode = {name: KINDS[f"kv.{name}"].encode for name in ("alloc", "evict", "cache", "free")}
    done = step = 0
    yield (
        0,
        schema.encode_batch(
            [KINDS["kv.pool"].encode(0, 0, 0, BLOCKS, 16, True, None, 0)], t=0, seq=1
        ),
    )
    while done < operations:
        step += 1
        events: list[str] = []
        used = BLOCKS - len(free)

        def take(count: int, req: str, events: list[str] = events) -> list[int]:
            ids = [free.popleft() for _ in range(count)]
            ago = rng.randrange(10**6)
            lost = [i for i in ids if i in cached]
            for i in lost:
                cached.discard(i)
                events.append(encode["evict"](ago, None, 0, BLOCKS - len(free), (i,), req, "alloc"))
            events.append(encode["alloc"](ago, 900, 0, BLOCKS - len(free), tuple(ids), req))
            return ids

        while len(running) < RUNNING and len(free) > 200:
            req = f"chatcmpl-{rng.getrandbits(128):032x}"
            running.append((req, take(rng.randrange(20, 100), req)))
        for req, blocks in running:
            if rng.random() < 1 / 16 and free:
                blocks += take(1, req)
                full = blocks[-2]
                cached.add(full)
                events.append(encode["cache"](500, 300, 0, BLOCKS - len(free), (full,), req))
        for i in [i for i in range(len(running)) if rng.random() < 1 / 200][::-1]:
            req, blocks = running.pop(i)
            free.extend(reversed(blocks))
            cached.update(blocks)
            events.append(
                encode["free"](100, 700, 0, BLOCKS - len(free), tuple(reversed(blocks)), None, req)
            )
        events.append(
            KINDS["sched.step"].encode(9000, 8000, step, len(running), len(running), 0, 0, used, 0)
        )
        done += len(events) - 1
        yield step * STEP_NS, schema.encode_batch(events, t=step * STEP_NS, seq=step + 1)


def main() -> None:
    """Run the stages and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--operations", type=int, default=1_000_000)
    parser.add_argument("--plain", action="store_true", help="without pyarrow")
    options = parser.parse_args()
    if options.plain:
        csv_session._arrow = lambda: None
    times = {}

    def stage(name: str, since: float) -> float:
        now = time.process_time()
        times[name] = now - since
        return now

    start = time.process_time()
    made = list(messages(options.operations))
    start = stage("generate", start)
    recording = Recording(options.operations)
    recording.markers = lambda: (Marker(t, None, 7, 7, text) for t, text in made)  # type: ignore[method-assign]
    recording.info.window = (0, made[-1][0])
    trace = decode_recordings([recording])
    start = stage("decode", start)
    tables = build_tables(trace)
    start = stage("tables", start)
    operations, lives = len(trace.frames["kv"]), len(tables["kv_block_lifetimes"])
    del tables  # a session is written without ever holding all of them
    with tempfile.TemporaryDirectory() as folder:
        write_session(trace, Path(folder) / "session")
        stage("tables and writing", start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{operations} block operations, {lives} lives")
    for name, seconds in times.items():
        print(f"{name:20} {seconds:8.2f} s CPU {seconds / operations * 1e6:8.2f} us an operation")
    print(f"peak {peak:.0f} MB, messages included")


if __name__ == "__main__":
    main()
