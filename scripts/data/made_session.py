"""Makes up a session of any length: to measure with, and to look at, never to conclude from.

The steps, graphs and GPU times are a made-up trace from which profilemate's own tables are built,
so these are consistent. The KV tables are made up directly, at the size that is asked for, because
ten million operations as events would take longer than the measurement.

    python scripts/data/made_session.py OUT --hour       # 200,000 steps, 10 million KV operations
    python scripts/data/made_session.py OUT --ranks 4    # a minute of four ranks
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.gpu.collected import folded
from profilemate.parse.gpu.launches import match
from profilemate.parse.pipeline import write_session
from profilemate.parse.recording.activity import GPU_COLUMNS, KERNEL, LAUNCH_COLUMNS, START_COLUMNS
from profilemate.parse.recording.contract import SourceInfo, SourceKind
from profilemate.parse.tables import TABLES
from profilemate.parse.trace.activity import GPU, LAUNCHES, typed_frame
from profilemate.parse.trace.trace import FRAME_NAMES, Trace, columns_of
from profilemate.parse.writers.csv_session import summary_text, write_csv

Ints = npt.NDArray[np.int64]

SECOND = 1_000_000_000
START = 1_795_507_742 * SECOND
BLOCKS = 20_000
SIZES = np.array([1, 2, 4, *range(8, 257, 8), *range(272, 513, 16)])
"""What vLLM captures by default."""
PIECES = 4
FOREIGN = "req-</script><script>alert(1)</script>&\"'<!--"
"""A request id that would break a careless page."""


@dataclass(frozen=True, slots=True)
class Made:
    """What to make up."""

    steps: int = 3000
    seconds: int = 60
    ranks: int = 1
    lives: int = 20_000
    operations: int = 5_000
    seed: int = 1


def make(out: Path, what: Made) -> Path:
    """Write a session directory; it must not exist."""
    rng = np.random.default_rng(what.seed)
    write_session(_trace(what, rng), out)
    _kv_tables(out, what, rng)
    return out


# --------------------------------------------------------------------------- steps and graphs


def _trace(what: Made, rng: np.random.Generator) -> Trace:
    gap = (what.seconds * SECOND - SECOND // 2) // what.steps
    ts = SECOND // 2 + np.arange(what.steps) * gap + rng.integers(0, gap // 10, what.steps)
    load = 0.5 + 0.45 * np.sin(np.linspace(0, 9, what.steps)) * rng.uniform(0.7, 1, what.steps)
    reqs = np.maximum(1, (load * 250).astype(np.int64))
    prefill = np.where(rng.random(what.steps) < 0.12, rng.integers(1, 900, what.steps), 0)
    tokens = reqs + prefill
    place = np.searchsorted(SIZES, tokens)
    fits = place < len(SIZES)
    padded = np.where(fits, SIZES[np.minimum(place, len(SIZES) - 1)], tokens)
    mode = np.where(~fits, "NONE", np.where(prefill > 0, "PIECEWISE", "FULL"))
    host = np.minimum((rng.lognormal(0, 0.25, what.steps) * 4e6).astype(np.int64), gap * 8 // 10)
    steps = {
        "ts": ts, "dur": host, "step": np.arange(1, what.steps + 1), "mode": mode,
        "num_tokens": padded, "uniform": mode == "FULL", "has_lora": np.zeros(what.steps, bool),
        "unpadded": tokens, "reqs": reqs, "prefill_tokens": prefill, "decode_tokens": reqs,
        "launches": np.where(mode == "FULL", 1, np.where(mode == "PIECEWISE", PIECES, 0)),
        "dummy": np.zeros(what.steps, bool),
    }  # fmt: skip
    rows: dict[str, list[pd.DataFrame]] = {name: [] for name in FRAME_NAMES}
    calls: list[dict[str, Ints]] = []
    records: list[dict[str, Ints]] = []
    for rank in range(what.ranks):
        pid = 100 + rank
        rows["session"].append(_session(rank, pid))
        rows["step"].append(_frame("step", what.steps, pid, steps))
        rows["graph.capture"].append(_captures(pid))
        call, record = _activity(steps, pid, 1 + 0.08 * (rank == 2), rng)
        calls.append(call)
        records.append(record)
    frames = {
        name: pd.concat(parts, ignore_index=True).astype(columns_of(name)) if parts
        else _frame(name, 0, 0, {})
        for name, parts in rows.items()
    }  # fmt: skip
    counts = {name: len(frame) for name, frame in frames.items() if len(frame)}
    source = SourceInfo(Path("made_up.nsys-rep"), SourceKind.NSYS_REPORT, 123_456_789)
    window = (SECOND // 2, what.seconds * SECOND)
    call, record = _joined(calls), _joined(records)
    nothing = dict.fromkeys((*START_COLUMNS, "recording"), np.zeros(0, np.int64))
    columns = {"launches": call, "starts": nothing, "gpu": record}
    found = match(columns | folded(record, ["cudaGraphLaunch", "kernel"]))
    return Trace(
        sources=[source],
        frames=frames,
        start_unix_ns=START,
        window=window,
        counts=counts,
        launches=typed_frame(LAUNCHES, found.launches),
        gpu=typed_frame(GPU, found.gpu),
        work=found.work,
        api_calls={"cudaGraphLaunch": len(call["ts"])},
    )


def _frame(name: str, rows: int, pid: int, values: dict[str, Any]) -> pd.DataFrame:
    """A frame of a kind; what is not said is not known."""
    given = {"pid": [pid] * rows, "tid": [1] * rows} | values
    data = {
        column: pd.Series(given.get(column, [None] * rows), dtype=dtype)
        for column, dtype in columns_of(name).items()
    }
    return pd.DataFrame(data)


def _session(rank: int, pid: int) -> pd.DataFrame:
    who = {"ts": [0], "role": ["worker"], "host": ["made-up"], "dp": [0], "pp": [0], "tp": [rank]}
    return _frame("session", 1, pid, who | {"vllm": ["0.32.0"], "faults": [0]})


def _captures(pid: int) -> pd.DataFrame:
    full = SIZES[SIZES <= 256]
    sizes = np.concatenate([SIZES[::-1], full[::-1]])
    count = len(sizes)
    values = {
        "ts": np.arange(count) * 5_000_000, "dur": np.full(count, 4_000_000),
        "mode": ["PIECEWISE"] * len(SIZES) + ["FULL"] * len(full), "num_tokens": sizes,
        "uniform": [False] * len(SIZES) + [True] * len(full), "has_lora": [False] * count,
        "piece": [0] * count, "pieces": [1] * count, "owner": ["dispatcher"] * count,
    }  # fmt: skip
    return _frame("graph.capture", count, pid, values)


def _activity(
    steps: dict[str, Any], pid: int, slow: float, rng: np.random.Generator
) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """Launches inside of the steps, and one GPU record each."""
    owner = np.repeat(np.arange(len(steps["ts"])), steps["launches"])
    piece = np.arange(len(owner)) - np.searchsorted(owner, owner)
    count = len(owner)
    begin = steps["ts"][owner] + 100_000 + piece * 150_000
    call = {name: np.zeros(count, np.int64) for name in (*LAUNCH_COLUMNS, "recording")}
    call |= {"ts": begin, "pid": np.full(count, pid), "tid": np.ones(count, np.int64)}
    call["dur"] = (rng.lognormal(0, 0.3, count) * 45_000).astype(np.int64)
    call["correlation"] = np.arange(1, count + 1)
    pieces = steps["launches"][owner]
    work = (2e6 + steps["num_tokens"][owner] * 22_000) * slow / pieces
    delay = (rng.lognormal(0, 0.5, count) * 30_000).astype(np.int64)
    record = {name: np.zeros(count, np.int64) for name in (*GPU_COLUMNS, "recording")}
    record |= {"start": begin + delay, "pid": call["pid"], "correlation": call["correlation"]}
    record["end"] = record["start"] + (work * rng.lognormal(0, 0.05, count)).astype(np.int64)
    record["node"] = np.ones(count, np.int64)
    record["kind"] = np.full(count, KERNEL)
    record["name"] = np.ones(count, np.int64)
    return call, record


def _joined(parts: list[dict[str, Ints]]) -> dict[str, Ints]:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


# --------------------------------------------------------------------------- KV cache


def _kv_tables(out: Path, what: Made, rng: np.random.Generator) -> None:
    end = what.seconds * SECOND
    times = np.sort(rng.integers(SECOND // 2, end, what.steps))
    wave = 0.68 + 0.3 * np.sin(np.linspace(0, 14, what.steps)) + rng.normal(0, 0.02, what.steps)
    used = np.clip((wave * BLOCKS).astype(np.int64), 0, BLOCKS)
    usage = {"timestamp_sec": times, "usage_pct": used / BLOCKS, "num_blocks": used}
    _write(out, "kv_cache_usage", what.steps, usage | {"total_blocks": np.full(what.steps, BLOCKS)})

    allocated = np.sort(rng.integers(SECOND // 2, end, what.lives))
    lifetime = (rng.lognormal(2, 1.1, what.lives) * SECOND).astype(np.int64)
    idle = (lifetime * rng.beta(2, 3, what.lives)).astype(np.int64)
    ended = allocated + lifetime
    open_ = ended > end
    by = np.where(open_, "open", np.where(rng.random(what.lives) < 0.7, "evicted", "reused"))
    known = {"lifetime_sec": pd.array(lifetime, "Int64"), "idle_sec": pd.array(idle, "Int64")}
    for column in known.values():
        column[open_] = pd.NA
    no = np.zeros(what.lives, bool)
    lives = {
        "pool": np.zeros(what.lives, int), "block_id": rng.integers(1, BLOCKS, what.lives),
        "allocated_sec": allocated, "ended_by": by, "accesses": rng.integers(0, 9, what.lives),
        "last_access_sec": ended - idle, "cached": by == "evicted", "censored_start": no,
        "censored_end": open_, "counted_by_vllm": ~open_, **known,
    }  # fmt: skip
    _write(out, "kv_block_lifetimes", what.lives, lives)
    gone = np.flatnonzero(by == "evicted")
    gone = gone[np.argsort(ended[gone], kind="stable")]
    evictions = {
        "timestamp_sec": ended[gone],
        "lifetime_sec": lifetime[gone],
        "idle_sec": idle[gone],
    }
    _write(out, "kv_cache_evictions", len(gone), evictions)

    count = max(what.steps // 20, 3)
    asked = rng.integers(200, 4000, count)
    hit = (asked * rng.beta(4, 2, count)).astype(np.int64) // 16 * 16
    names = [FOREIGN, *(f"cmpl-{i:08x}" for i in range(1, count))]
    running, hits = np.cumsum(asked), np.cumsum(hit)
    lookups = {
        "timestamp_sec": np.sort(rng.integers(SECOND // 2, end, count)), "request_id": names,
        "tokens": asked, "hit_tokens": hit, "hit_rate": hit / asked,
        "preempted": np.zeros(count, bool), "running_queries": running, "running_hits": hits,
        "running_hit_rate": hits / running,
    }  # fmt: skip
    _write(out, "kv_prefix_cache", count, lookups)
    full = times[np.flatnonzero(used == BLOCKS)][:: max(1, what.steps // 3000)]
    stopped = {"timestamp_sec": full, "request_id": [FOREIGN] * len(full)}
    stopped |= {"blocks_freed": np.full(len(full), 12), "tokens_lost": np.full(len(full), 180)}
    _write(out, "kv_preemptions", len(full), stopped)
    _events(out, what, rng)
    summary = {
        "Total blocks available": BLOCKS, "Total allocations": what.lives,
        "Peak blocks used": int(used.max()), "Peak usage": used.max() / BLOCKS,
        "Total evictions": len(gone), "Avg block lifetime": int(lifetime[gone].mean()),
        "Avg idle before eviction": int(idle[gone].mean()),
    }  # fmt: skip
    layout = TABLES["kv_cache_summary"]
    (out / layout.file).write_text(summary_text(pd.DataFrame([summary]), layout))
    _say_so(out)


def _say_so(out: Path) -> None:
    """The metadata were written before the KV tables were there."""
    file = out / "metadata.json"
    metadata = json.loads(file.read_text())
    for name in [n for n in metadata["empty_files"] if n.startswith("kv_")]:
        del metadata["empty_files"][name]
    metadata["kv_cache_tracking"] = True
    metadata["notes"].append(
        "Made up by scripts/data/made_session.py: not a recording of anything."
    )
    file.write_text(json.dumps(metadata, indent=2))


def _events(out: Path, what: Made, rng: np.random.Generator) -> None:
    count = what.operations
    ops = np.array(["alloc", "cache", "touch", "free", "evict"], dtype=object)
    block = rng.integers(1, BLOCKS, count)
    ids = np.array([(int(b),) for b in range(BLOCKS)] + [None], dtype=object)[:-1]
    used = rng.integers(0, BLOCKS, count)
    events = {
        "timestamp_sec": np.sort(rng.integers(SECOND // 2, what.seconds * SECOND, count)),
        "duration_ms": rng.integers(5_000, 80_000, count), "op": ops[np.arange(count) % 5],
        "pool": np.zeros(count, int), "blocks": ids[block], "num_blocks": np.ones(count, int),
        "used_blocks": used, "usage_pct": used / BLOCKS,
    }  # fmt: skip
    _write(out, "kv_block_events", count, events)


def _write(out: Path, name: str, rows: int, values: dict[str, Any]) -> None:
    layout = TABLES[name]
    frame = pd.DataFrame(
        {
            c.name: values.get(c.name, pd.array([None] * rows, dtype="Int64"))
            for c in layout.columns
        },
        index=range(rows),
    )
    write_csv(out / layout.file, frame, layout)


HOUR = Made(steps=200_000, seconds=3600, lives=2_000_000, operations=10_000_000)


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hour", action="store_true")
    parser.add_argument("--ranks", type=int, default=1)
    options = parser.parse_args()
    print(make(options.out, HOUR if options.hour else Made(ranks=options.ranks)))


if __name__ == "__main__":
    main()
