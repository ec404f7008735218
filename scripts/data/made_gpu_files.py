"""The golden recordings with GPU work, made up: no machine of this project records any.

    python scripts/data/made_gpu_files.py [FOLDER]      # tests/data without one

Two recorders of the run of made_gpu_run: `made_nsys`, an export of Nsight Systems with the graphs'
nodes, of all processes; `made_torch`, the torch profiler's trace of the first worker, which began
late, and the sidecars that it and the engine wrote themselves. `pytest tests/golden
--update-references` then writes what is expected of them.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import made_gpu_run  # noqa: E402
from made_gpu_run import ENGINE, MONOTONIC, UNIX_NS, WORKERS, Message, Run, Work  # noqa: E402

from profilemate import schema  # noqa: E402
from profilemate.schema.live import SIDECAR, SIDECAR_END  # noqa: E402

TABLES = ROOT / "tests" / "data" / "nsys_schemas" / "2023.4.4.sql"
README = """# Made, not recorded

`python scripts/data/made_gpu_files.py` wrote what lies here{what}. It is a run that never was, in
the format of {format}: GPU figures of golden tables, until a real recording takes its place.
"""
MARK, PUSH_POP = 34, 59
BEGAN_NS = 70_000_000
"""When the torch profiler began, after the run did."""
LATE_NS = 2_300
"""How much later than its sidecar the torch profiler sees a message."""


def texts(messages: list[Message], pid: int) -> list[tuple[Message, str]]:
    """The messages of a process, spelled as the emitter spells them for one recorder."""
    found, batches = [], 0
    for message in messages:
        if message.pid != pid:
            continue
        if message.duration_ns is not None:
            found.append((message, schema.encode(message.events[0])))
            continue
        batches += 1
        spelled = [schema.encode_event(event) for event in message.events]
        found.append((message, schema.encode_batch(spelled, t=MONOTONIC + message.ns, seq=batches)))
    return found


# ------------------------------------------------------------------ Nsight Systems


def _thread(pid: int) -> int:
    """A thread as nsys numbers it: a machine, 24 bits of process, 24 bits of thread."""
    return 1 << 48 | pid << 24 | (pid + 1)


def _insert(db: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    """Insert a row; what it does not say and may not be NULL is 1."""
    needed = {n: 1 for _, n, _, notnull, *_ in db.execute(f"PRAGMA table_info({table})") if notnull}
    full = {**needed, **row}
    marks = ", ".join("?" * len(full))
    db.execute(f"INSERT INTO {table} ({', '.join(full)}) VALUES ({marks})", list(full.values()))


def write_nsys(path: Path, run: Run) -> None:
    """An export with the messages of all processes, their calls, and the nodes of graphs."""
    strings: dict[str, int] = {}

    def number(text: str) -> int:
        return strings.setdefault(text, len(strings) + 1)

    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(TABLES.read_text(encoding="utf-8"))
        facts = {
            "EXPORT_PRODUCT_NAME": "NVIDIA Nsight Systems",
            "EXPORT_PRODUCT_VERSION": "2023.4.4",
            "EXPORT_SCHEMA_VERSION": "3.7.2",
            "EXPORT_CONFIG_TIME_SHIFT": "0",
        }
        db.executemany("INSERT INTO META_DATA_EXPORT VALUES (?, ?)", facts.items())
        times = {"utcEpochNs": UNIX_NS, "utcTime": "-", "localTime": "-"}
        _insert(db, "TARGET_INFO_SESSION_START_TIME", times)
        _insert(db, "ANALYSIS_DETAILS", {"duration": 200_000_000, "startTime": 0, "stopTime": 0})
        said = [one for pid in (ENGINE, *WORKERS) for one in texts(run.messages, pid)]
        said += [(message, message.events[0].kind) for message in run.annotations]
        for message, text in sorted(said, key=lambda one: (one[0].ns, one[0].pid)):
            lasts = message.duration_ns
            row: dict[str, object] = {"start": message.ns, "globalTid": _thread(message.pid)}
            row |= {"textId": number(text), "domainId": 1, "eventType": MARK, "end": None}
            if lasts is not None:
                row |= {"eventType": PUSH_POP, "end": message.ns + lasts}
            _insert(db, "NVTX_EVENTS", row)
        for call in run.calls:
            row = {"start": call.ns, "end": call.ns + call.duration_ns}
            row |= {"globalTid": _thread(call.pid), "correlationId": call.correlation}
            _insert(
                db, "CUPTI_ACTIVITY_KIND_RUNTIME", {**row, "nameId": number(f"{call.name}_v10000")}
            )
        for work in run.work:
            row = {"start": work.ns, "end": work.ns + work.duration_ns, "deviceId": work.device}
            row |= {"contextId": 1, "streamId": work.stream, "correlationId": work.correlation}
            row |= {"globalPid": 1 << 48 | work.pid << 24, "graphNodeId": work.node}
            if work.kind == "kernel":
                row |= {"demangledName": number(work.name), "shortName": number(work.name)}
            _insert(db, f"CUPTI_ACTIVITY_KIND_{work.kind.upper()}", row)
        db.executemany("INSERT INTO StringIds (value, id) VALUES (?, ?)", strings.items())
        db.commit()


# ------------------------------------------------------------------ the torch profiler


def _event(
    category: str, name: str, place: tuple[int, int], begin_ns: int, lasts_ns: int, **args: object
) -> dict[str, Any]:
    pid, tid = place
    times = {"ts": begin_ns / 1000, "dur": lasts_ns / 1000}
    return {"ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid, **times, "args": args}


def _gpu_event(work: Work) -> dict[str, Any]:
    args: dict[str, object] = {"device": work.device, "context": 1, "stream": work.stream}
    args |= {"correlation": work.correlation, "External id": work.correlation}
    if work.graph is not None:
        args |= {"graph id": work.graph, "graph node id": work.node}
    kind = work.kind if work.kind == "kernel" else f"gpu_{work.kind}"
    return _event(kind, work.name, (work.device, work.stream), work.ns, work.duration_ns, **args)


def torch_trace(run: Run, pid: int) -> str:
    """The text of a worker's trace, from `BEGAN_NS` on. Its times are us since the run began."""
    place = (pid, pid + 1)
    heard = [one for one in run.messages if one.ns >= BEGAN_NS]
    events = [
        _event("user_annotation", text, place, message.ns + LATE_NS, message.duration_ns or 600)
        for message, text in texts(heard, pid)
    ]
    for message in run.annotations:
        if message.pid == pid and message.ns >= BEGAN_NS:
            name, lasts = message.events[0].kind, message.duration_ns or 0
            events.append(_event("user_annotation", name, place, message.ns, lasts))
    for call in run.calls:
        if call.pid == pid and call.ns >= BEGAN_NS:
            ids = {"cbid": 311, "correlation": call.correlation}
            events.append(
                _event("cuda_runtime", call.name, place, call.ns, call.duration_ns, **ids)
            )
    calls = {c.correlation for c in run.calls if c.pid == pid and c.ns >= BEGAN_NS}
    events += [_gpu_event(w) for w in run.work if w.pid == pid and w.correlation in calls]
    head = {
        "schemaVersion": 1,
        "deviceProperties": [{"id": 0, "name": "a GPU that never was"}],
        "baseTimeNanoseconds": UNIX_NS,
    }
    return json.dumps({**head, "traceEvents": events}, indent=1) + "\n"


def sidecar(run: Run, pid: int) -> str:
    """The text of what a process wrote itself: its messages by the wall clock."""
    lines = []
    for message, text in texts(run.messages, pid):
        begin = UNIX_NS + message.ns + 400
        times = f'"ts":{begin // 1000}.{begin % 1000:03}'
        place = f'"name":"{text}","pid":{pid},"tid":{pid + 1},{times}'
        if message.duration_ns is None:
            lines.append(f'{{"ph":"i","cat":"profilemate",{place},"s":"t"}}')
        else:
            lasts = f"{message.duration_ns // 1000}.{message.duration_ns % 1000:03}"
            lines.append(f'{{"ph":"X","cat":"profilemate",{place},"dur":{lasts}}}')
    ours = {"ph": "M", "cat": "profilemate", "pid": pid, "tid": 0}
    role = {"role": "engine" if pid == ENGINE else "worker", "dp": 0, "segment": 1}
    head = {**ours, "name": SIDECAR, "args": {**role, "dropped_segments": 0, "dropped_bytes": 0}}
    last = {**ours, "name": SIDECAR_END, "args": {"messages": len(lines)}}
    return "[\n" + ",\n".join([json.dumps(head), *lines, json.dumps(last)]) + "\n]\n"


def write(folder: Path) -> list[Path]:
    """Write both folders; returns the recordings in them."""
    run = made_gpu_run.make()
    nsys, torch = folder / "made_nsys", folder / "made_torch"
    kinds = {nsys: "Nsight Systems 2023.4", torch: "the torch profiler and of our own sidecars"}
    for place, kind in kinds.items():
        place.mkdir(parents=True, exist_ok=True)
        text = README.format(what=" but `expected/`", format=kind)
        (place / "README.md").write_text(text, encoding="utf-8")
    write_nsys(nsys / "recording.sqlite", run)
    trace = torch / "recording.json.gz"
    trace.write_bytes(gzip.compress(torch_trace(run, WORKERS[0]).encode(), mtime=0))
    engine, worker = torch / "engine.trace.json", torch / "worker.trace.json"
    engine.write_text(sidecar(run, ENGINE), encoding="utf-8")
    worker.write_text(sidecar(run, WORKERS[0]), encoding="utf-8")
    return [nsys / "recording.sqlite", trace, engine, worker]


if __name__ == "__main__":
    given = sys.argv[1:]
    for written in write(Path(given[0]) if given else ROOT / "tests" / "data"):
        print(f"{written}: {written.stat().st_size / 1000:.0f} KB")
