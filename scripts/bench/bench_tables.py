"""From messages to tables: how long a recording of many block operations takes, stage by stage.

Messages as the annotator writes them, of a pool that serves requests of many blocks each, are
read, made into all tables, and written. `--plain` does without pyarrow.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import bench_document

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from profilemate import schema  # noqa: E402
from profilemate.parse.columns.budget import Budget, memory_limit  # noqa: E402
from profilemate.parse.ingest.read_one import read_recording  # noqa: E402
from profilemate.parse.merge.aligned_recordings import align_recordings  # noqa: E402
from profilemate.parse.merge.recordings_to_trace import make_trace  # noqa: E402
from profilemate.parse.pipeline import write_session  # noqa: E402
from profilemate.parse.recording.activity import ActivitySink  # noqa: E402
from profilemate.parse.recording.contract import Marker, SourceInfo, SourceKind  # noqa: E402
from profilemate.parse.writers import csv_session  # noqa: E402
from profilemate.schema import KINDS  # noqa: E402

COLUMNS = (
    "operations",
    "lives of blocks",
    "limit",
    "read, s",
    "tables and CSV, s",
    "us an operation",
    "peak MB",
)
BLOCKS = 20_000
STEP_NS = 10_000_000
RUNNING = 128


class Recording:
    """Messages that were made up."""

    def __init__(self, operations: int) -> None:
        self._operations = operations
        self.info = SourceInfo(
            Path("generated"), SourceKind.TORCH, 0, start_unix_ns=1_700_000_000 * 10**9
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


def measured(operations: int, limit: int | None) -> list[str]:
    """Read, make all tables, write them: what each took, as cells of a row."""
    used = time.process_time
    start = used()
    for _ in messages(operations):
        pass
    made = used() - start
    start = used()
    budget = Budget.of(limit, tempfile.gettempdir())
    trace = make_trace(align_recordings([read_recording(Recording(operations), budget=budget)]))
    read = used() - start - made
    start = used()
    with tempfile.TemporaryDirectory() as folder:
        session = write_session(trace, Path(folder) / "session")
    written = used() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        f"{len(trace.kv):,}",
        f"{session.rows['kv_block_lifetimes']:,}",
        "none" if limit is None else f"{limit >> 20} MB",
        f"{read:.1f}",
        f"{written:.1f}",
        f"{(read + written) / operations * 1e6:.1f}",
        f"{peak:.0f}",
    ]


def chapter() -> str:
    """Everything once, each in a process of its own."""
    rows = []
    for operations in (1_000_000, 10_000_000):
        for limit in ((), ("--max-memory", "500M")):
            command = [sys.executable, __file__, "--row", "-n", str(operations), *limit]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(done.stdout.strip())
    return "\n".join(
        [
            "Made by `python scripts/bench/bench_tables.py --write`: messages of a made-up pool of "
            f"{BLOCKS:,} blocks, read, made",
            "into all tables, and written as CSV. Seconds are of CPU. Memory is the most that the "
            "process had,",
            "pages of temporary files among it, which the kernel may take away at any time.",
            "",
            f"| {' | '.join(COLUMNS)} |",
            "| ---: " * len(COLUMNS) + "|",
            *rows,
        ]
    )


def main() -> None:
    """Measure and print, or write the chapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--operations", type=int, default=1_000_000)
    parser.add_argument("--plain", action="store_true", help="without pyarrow")
    parser.add_argument("--max-memory", metavar="SIZE", help="as of `profilemate parse`")
    parser.add_argument("--row", action="store_true", help="print a row of the chapter")
    parser.add_argument("--write", action="store_true", help="write the chapter")
    options = parser.parse_args()
    if options.write:
        bench_document.put("What block operations take", chapter())
        return
    if options.plain:
        csv_session._arrow = lambda: None
    cells = measured(options.operations, memory_limit(options.max_memory))
    if options.row:
        print(f"| {' | '.join(cells)} |")
        return
    for name, cell in zip(COLUMNS, cells, strict=True):
        print(f"{name:20} {cell}")


if __name__ == "__main__":
    main()
