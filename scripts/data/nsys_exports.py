"""Large exports of Nsight Systems, made up: the same bytes of content for the same numbers.

A worker of vLLM that replays CUDA graphs: three steps of four launch one graph of hundreds of
kernels, the fourth 25 small ones. Tables and columns are those of 2023.4. A few copies overlap with
kernels of the next step, as the copy of sampled tokens does.
"""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PID = 4242
PERIOD = 3_000_000  # ns from step to step
BEGIN = 5_000_000_000
FULL, PIECES, PER_PIECE, EAGER = 320, 25, 13, 24
LAUNCH, EAGER_LAUNCH, QUERY, COPY = 1, 2, 3, 4
NAMES, OTHERS, MESSAGES = 10, 1000, 10_000
CHUNK = 400  # steps

_TABLES = """
CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE META_DATA_EXPORT (name TEXT NOT NULL, value TEXT);
CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs INTEGER);
CREATE TABLE ANALYSIS_DETAILS (duration INTEGER NOT NULL);
CREATE TABLE NVTX_EVENTS (start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL,
  rangeId INTEGER, category INTEGER, color INTEGER, text TEXT, globalTid INTEGER,
  endGlobalTid INTEGER, textId INTEGER, domainId INTEGER, uint64Value INTEGER,
  int64Value INTEGER, doubleValue REAL, uint32Value INTEGER, int32Value INTEGER,
  floatValue REAL, jsonTextId INTEGER, jsonText TEXT);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER NOT NULL, end INTEGER NOT NULL,
  eventClass INTEGER NOT NULL, globalTid INTEGER, correlationId INTEGER,
  nameId INTEGER NOT NULL, returnValue INTEGER NOT NULL, callchainId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER NOT NULL, end INTEGER NOT NULL,
  deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL, streamId INTEGER NOT NULL,
  correlationId INTEGER, globalPid INTEGER, demangledName INTEGER NOT NULL,
  shortName INTEGER NOT NULL, mangledName INTEGER, launchType INTEGER, cacheConfig INTEGER,
  registersPerThread INTEGER NOT NULL, gridX INTEGER NOT NULL, gridY INTEGER NOT NULL,
  gridZ INTEGER NOT NULL, blockX INTEGER NOT NULL, blockY INTEGER NOT NULL,
  blockZ INTEGER NOT NULL, staticSharedMemory INTEGER NOT NULL,
  dynamicSharedMemory INTEGER NOT NULL, localMemoryPerThread INTEGER NOT NULL,
  localMemoryTotal INTEGER NOT NULL, gridId INTEGER NOT NULL,
  sharedMemoryExecuted INTEGER, graphNodeId INTEGER, sharedMemoryLimitConfig INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start INTEGER NOT NULL, end INTEGER NOT NULL,
  deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL, streamId INTEGER NOT NULL,
  correlationId INTEGER, globalPid INTEGER, bytes INTEGER NOT NULL,
  copyKind INTEGER NOT NULL, graphNodeId INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How many rows of each of the large tables, about."""

    nvtx: int
    runtime: int
    kernels: int

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return max(1, self.kernels // (FULL + EAGER))


Rows = Iterator[tuple[Any, ...]]


class Run:
    """The rows of some steps, column by column."""

    def __init__(self, first: int, size: Size, pid: int = PID) -> None:
        self._process, self._thread = pid << 24, (pid << 24) | (pid + 1)
        count = min(CHUNK, size.steps - first)
        self.step = np.arange(first, first + count, dtype=np.int64)
        self.begin = BEGIN + self.step * PERIOD + pid * 977  # no two runs at the same instant
        self._calls = max(1, size.runtime // size.steps - PIECES - EAGER - 1)
        self._others = max(1, size.nvtx // size.steps - 2)
        self._size = size

    def nvtx(self) -> Rows:
        """Ranges of others, one long list per step, and of ours: the step and its replay."""
        for step, begin in zip(self.step.tolist(), self.begin.tolist(), strict=True):
            ours = MESSAGES + 2 * step
            yield begin, begin + 900_000, 59, None, self._thread, ours, 1
            yield begin + 40_000, begin + 890_000, 59, None, self._thread, ours + 1, 1
            at = begin + 1000
            for i in range(self._others):
                end = at + 700 + 13 * (i % 7)
                yield at, end, 59, None, self._thread, OTHERS + (i * 7 + step) % 500, 2
                at += 1200

    def calls(self) -> Rows:
        """API calls: the launches, and as many others that start nothing."""
        for step, begin in zip(self.step.tolist(), self.begin.tolist(), strict=True):
            base = 1 + step * 64
            at = begin + 20_000
            for i in range(EAGER):
                yield at, at + 500, self._thread, base + i, EAGER_LAUNCH
                at += 600
            at = begin + 50_000
            for i in range(1 if step % 4 else PIECES):
                yield at, at + 4_000, self._thread, base + EAGER + i, LAUNCH
                at += 30_000
            yield at, at + 900, self._thread, base + 63, COPY
            for _ in range(self._calls + (PIECES - 1 if step % 4 else 0)):
                yield at + 1000, at + 1100, self._thread, 0, QUERY
                at += 150

    def kernels(self) -> Rows:
        """Kernels, in order of time."""
        for step, begin in zip(self.step.tolist(), self.begin.tolist(), strict=True):
            base, at = 1 + step * 64, begin + 2_000_000
            for i in range(EAGER):
                yield at, at + 1500, base + i, NAMES + i % 7, None, self._process
                at += 2000
            graph = 1 + step % 4
            pieces = [FULL] if step % 4 else [PER_PIECE] * PIECES
            for piece, count in enumerate(pieces):
                for node in range(count):
                    long = 2000 + (node * 37 + step) % 1500
                    name = NAMES + (node * 3 + graph) % 200
                    which = ((graph * 100 + piece) << 32) + node
                    yield at, at + long, base + EAGER + piece, name, which, self._process
                    at += long + 300 if node % 9 else long - 200  # now and then two at once

    def copies(self) -> Rows:
        """The copy of the sampled tokens, which may last into the next step."""
        for step, begin in zip(self.step.tolist(), self.begin.tolist(), strict=True):
            at = begin + 2_000_000 + PERIOD - 90_000
            yield at, at + 100_000 * (step % 3), 1 + step * 64 + 63, self._process

    def messages(self) -> Rows:
        """Our texts: two per step."""
        for step in self.step.tolist():
            mode, count = ("FULL", 1) if step % 4 else ("PIECEWISE", PIECES)
            tokens = 8 * (1 + step % 4)
            yield (
                MESSAGES + 2 * step,
                f"pm1.step ago=100 step={step} mode={mode} num_tokens={tokens} "
                f"uniform=True has_lora=False unpadded={tokens - 3} reqs={tokens - 3} "
                f"prefill_tokens=0 decode_tokens={tokens - 3} launches={count}",
            )
            yield (
                MESSAGES + 2 * step + 1,
                f"pm1.graph.replay step={step} mode={mode} num_tokens={tokens}",
            )


_INSERTS = (
    (
        Run.nvtx,
        "NVTX_EVENTS (start, end, eventType, text, globalTid, textId, domainId) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
    ),
    (
        Run.calls,
        "CUPTI_ACTIVITY_KIND_RUNTIME (start, end, eventClass, globalTid, correlationId, nameId, "
        "returnValue) VALUES (?, ?, 0, ?, ?, ?, 0)",
    ),
    (
        Run.kernels,
        "CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, contextId, streamId, correlationId, "
        "globalPid, demangledName, shortName, launchType, registersPerThread, gridX, gridY, "
        "gridZ, blockX, blockY, blockZ, staticSharedMemory, dynamicSharedMemory, "
        "localMemoryPerThread, localMemoryTotal, gridId, graphNodeId) "
        "VALUES (?1, ?2, 0, 1, 7, ?3, ?6, ?4, ?4, 0, 32 + ?4 % 200, 1 + ?4 * 37 % 4000, "
        "1 + ?4 % 2, 1, 32 << ?4 % 6, 1, 1, ?4 % 4 * 8192, ?4 % 3 * 49152, "
        "0, 0, 0, ?5)",
    ),
    (
        Run.copies,
        "CUPTI_ACTIVITY_KIND_MEMCPY (start, end, deviceId, contextId, streamId, correlationId, "
        "globalPid, bytes, copyKind) VALUES (?, ?, 0, 1, 8, ?, ?, 4096, 2)",
    ),
    (Run.messages, "StringIds (id, value) VALUES (?, ?)"),
)


def write(path: Path, size: Size, pid: int = PID) -> None:
    """Write an export of about this size, of a worker with this number."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA page_size=4096;" + _TABLES
        )
        names = {LAUNCH: "cudaGraphLaunch_v10000", EAGER_LAUNCH: "cudaLaunchKernel_v7000"}
        names |= {QUERY: "cudaEventQuery_v3020", COPY: "cudaMemcpyAsync_v3020"}
        names |= {NAMES + i: f"void kernel_{i}<float, {i}>(Params)" for i in range(210)}
        names |= {OTHERS + i: f"aten::op_{i}" for i in range(500)}
        db.executemany("INSERT INTO StringIds VALUES (?, ?)", names.items())
        facts = {
            "EXPORT_PRODUCT_NAME": "NVIDIA Nsight Systems",
            "EXPORT_PRODUCT_VERSION": "2023.4.4.54",
            "EXPORT_SCHEMA_VERSION": "3.7.2",
            "EXPORT_CONFIG_TIME_SHIFT": "0",
        }
        db.executemany("INSERT INTO META_DATA_EXPORT VALUES (?, ?)", facts.items())
        db.execute("INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (1795512988813527966)")
        for method, insert in _INSERTS:
            for first in range(0, size.steps, CHUNK):
                db.executemany(f"INSERT INTO {insert}", method(Run(first, size, pid)))
        db.commit()


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--nvtx", type=float, default=20, help="million rows")
    parser.add_argument("--runtime", type=float, default=10, help="million rows")
    parser.add_argument("--kernels", type=float, default=10, help="million rows")
    given = parser.parse_args()
    rows = (int(1e6 * n) for n in (given.nvtx, given.runtime, given.kernels))
    write(given.path, Size(*rows))


if __name__ == "__main__":
    main()
