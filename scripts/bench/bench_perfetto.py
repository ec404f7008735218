"""What writing a timeline costs: time, size, and memory beyond the trace itself.

The trace is generated: an hour of a server, 200,000 steps of 50 block operations each (five of
them evictions), a worker with one graph launch a step, and a GPU record for each.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import NONE
from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.id_lists import IdLists
from profilemate.parse.columns.pandas import integers
from profilemate.parse.gpu.work import WORK, GpuWork
from profilemate.parse.recording.activity import GRAPH
from profilemate.parse.session.timeline_file import Options, write_timeline
from profilemate.parse.trace.activity import GPU, LAUNCHES, typed_frame
from profilemate.parse.trace.kv_log import OPS as KV_OPS
from profilemate.parse.trace.kv_log import KvLog, KvLogWriter, Texts
from profilemate.parse.trace.trace import FRAME_NAMES, Trace, columns_of, empty_frame

HOUR = 3_600_000_000_000
OPS = ("evict", "alloc", "cache", "free", "touch")
OPS_PER_STEP = 50
BLOCKS = 40_000
ENGINE, WORKER = 1, 2


def frame(name: str, count: int, given: dict[str, Any]) -> pd.DataFrame:
    """A frame of which some columns are given and the others are NA."""
    nothing = integers(np.full(count, NONE, dtype=np.int64))
    data = {}
    for column, dtype in columns_of(name).items():
        if column in given:
            data[column] = pd.Series(given[column], dtype=dtype)
        elif dtype in ("object", "string"):
            data[column] = pd.Series(np.full(count, None, dtype=object), dtype=dtype)
        else:
            data[column] = pd.Series(nothing).astype(dtype)  # type: ignore[call-overload]
    return pd.DataFrame(data)


def trace_of(steps: int) -> Trace:
    """A trace of so many steps."""
    number = np.arange(steps)
    begin = number * (HOUR // max(steps, 1))
    decode = 1 + number % 256
    frames = {name: empty_frame(name) for name in FRAME_NAMES}
    engine = {"pid": np.full(steps, ENGINE), "tid": np.full(steps, ENGINE), "step": number}
    frames["sched.step"] = frame(
        "sched.step",
        steps,
        {
            **engine,
            "ts": begin,
            "dur": np.full(steps, 300_000),
            "num_tokens": decode,
            "num_reqs": decode,
            "running": decode,
            "waiting": number % 7,
        },
    )
    frames["step"] = frame(
        "step",
        steps,
        {
            **engine,
            "pid": np.full(steps, WORKER),
            "ts": begin + 400_000,
            "dur": np.full(steps, 9_000_000),
            "mode": np.full(steps, "FULL", dtype=object),
            "num_tokens": 8 * -(-decode // 8),
            "unpadded": decode,
            "reqs": decode,
            "prefill_tokens": np.zeros(steps, dtype=np.int64),
            "decode_tokens": decode,
            "launches": np.ones(steps, dtype=np.int64),
        },
    )
    pool = {"num_blocks": [BLOCKS], "pool": [0], "ts": [0], "pid": [ENGINE], "tid": [ENGINE]}
    frames["kv.pool"] = frame("kv.pool", 1, pool)
    ones, zeros = np.ones(steps, dtype=np.int64), np.zeros(steps, dtype=np.int64)
    first, last = begin + 5_000_000, begin + 12_000_000
    launches = {"ts": begin + 1_000_000, "dur": 20_000 * ones, "pid": 2 * ones, "tid": ones}
    launches |= {"correlation": number + 1, "name": zeros, "id": number, "records": ones}
    launches |= {"kernels": zeros, "kernel_ns": zeros, "first": first, "last": last}
    launches |= {"busy": last - first, "graph": ones, "graph_id": ones}
    gpu = dict.fromkeys(GPU, zeros) | {"start": first, "end": last, "pid": 2 * ones}
    gpu |= {"launch": number, "kind": GRAPH * ones, "correlation": number + 1}
    gpu |= {"host_ts": begin + 1_000_000, "host_tid": ones}
    rows = dict.fromkeys(WORK, zeros) | {n: gpu[n] for n in gpu if n in WORK}
    return Trace(
        sources=[],
        frames=frames,
        kv=kv_of(steps),
        start_unix_ns=1_800_000_000_000_000_000,
        window=(0, HOUR),
        launches=typed_frame(LAUNCHES, launches),
        gpu=typed_frame(GPU, gpu),
        work=GpuWork(rows | {"id": number, "records": ones, "busy": last - first}),
        names=["cudaGraphLaunch"],
        api_calls={"cudaGraphLaunch": steps},
    )


def kv_of(steps: int) -> KvLog:
    """Block operations: each step evicts, allocates, caches, frees and touches some blocks."""
    requests = [f"cmpl-{i:016x}" for i in range(max(steps // 20, 1))]
    kinds = np.array([KV_OPS.index(OPS[min(i // 5, 4)]) for i in range(OPS_PER_STEP)])
    budget = Budget()
    writer = KvLogWriter(budget)
    count = steps * OPS_PER_STEP
    for first in range(0, count, budget.rows):
        number = np.arange(first, min(first + budget.rows, count))
        step, kind = number // OPS_PER_STEP, kinds[number % OPS_PER_STEP]
        ones = np.ones(len(number), dtype=np.int64)
        block = (number * 31) % BLOCKS + 1
        none = IdLists.none(len(number))
        writer.add(
            ENGINE,
            {
                "ts": step * (HOUR // max(steps, 1)) + number % OPS_PER_STEP * 5000,
                "dur": 3000 * ones,
                "tid": ENGINE * ones,
                "op": kind,
                "pool": 0 * ones,
                "used": BLOCKS // 2 + (step * 7919) % (BLOCKS // 3),
                "ids": IdLists(block, ones, np.zeros(len(number), dtype=bool)),
                "subset": none,
                "dst": none,
                "req": step // 20 % len(requests),
                "group": NONE * ones,
                "partial": -ones,
                "hit": -ones,
                "cause": np.where(kind == KV_OPS.index("evict"), len(requests), -1),
                "ok": -ones,
            },
        )
    return writer.log(Texts([*requests, "alloc"]))


def memory(what: str) -> float:
    """A line of /proc/self/status in MB: VmRSS is what is used now, VmHWM the most so far."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1000
    raise AssertionError(what)


def measure(steps: int) -> None:
    """Print a row."""
    trace = trace_of(steps)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what making the trace left behind would hide what is needed
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins anew
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        result = write_timeline(trace, Path(folder) / "t.pftrace", Options())
        took = time.process_time() - start
    written, peak = result.written, memory("VmHWM") - before
    print(
        f"| {steps:,} | {len(trace.kv):,} | {written.events:,} "
        f"| {written.size / 1e6:.0f} | {took:.1f} | {written.size / took / 1e6:.1f} "
        f"| {written.events / took:,.0f} | {written.slices / took:,.0f} | {before:.0f} "
        f"| {peak:.0f} |",
        flush=True,
    )
    for warning in result.warnings:
        print(f"  {warning}")


def main() -> None:
    """Measure each size in a process of its own, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", type=int, default=[50_000, 200_000])
    parser.add_argument("--row", action="store_true", help="no heading, and in this process")
    options = parser.parse_args()
    if options.row:
        measure(*options.steps)
        return
    print(
        "| steps | KV operations | events | file, MB | CPU s | MB/s | events/s | slices/s "
        "| process with the trace, MB | peak beyond it, MB |\n|" + " --- |" * 10,
        flush=True,
    )
    for steps in options.steps:
        subprocess.run([sys.executable, __file__, str(steps), "--row"], check=True)


if __name__ == "__main__":
    main()
