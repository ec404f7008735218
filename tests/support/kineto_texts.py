"""Torch traces as texts, and all that a reader gives of one."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

from profilemate.parse.gpu.collected import Collected
from profilemate.parse.recording.contract import Recording

BASE = 1_759_300_074_000_000_000


def event(category: str, name: str, ts: object, dur: object = 2, **more: Any) -> dict[str, Any]:
    fields = {"ph": "X", "cat": category, "name": name, "pid": 7, "tid": 8, "ts": ts, "dur": dur}
    return fields | more


def launch(
    ts: object, correlation: int, name: str = "cudaGraphLaunch", **more: Any
) -> dict[str, Any]:
    return event("cuda_runtime", name, ts, args={"correlation": correlation}, **more)


def kernel(ts: object, correlation: int, name: str = "k", **args: Any) -> dict[str, Any]:
    args = {"device": 0, "stream": 7, "correlation": correlation, **args}
    return event("kernel", name, ts, pid=0, tid=7, args=args)


def document(events: list[dict[str, Any]], **header: Any) -> dict[str, Any]:
    return {"schemaVersion": 1, "baseTimeNanoseconds": BASE, **header, "traceEvents": events}


def kineto_2026(trace: dict[str, Any]) -> str:
    """One key a line, as Kineto writes it since April 2026."""
    head = "".join(
        f"  {json.dumps(k)}: {json.dumps(v)},\n" for k, v in trace.items() if k != "traceEvents"
    )
    events = ",\n".join(
        "  {\n" + ",\n".join(f'    "{k}": {json.dumps(v)}' for k, v in e.items()) + "\n  }"
        for e in trace["traceEvents"]
    )
    return "{\n" + head + f'  "traceEvents": [\n{events}\n  ]\n}}\n'


def write(path: Path, text: str | dict[str, Any]) -> Path:
    raw = (text if isinstance(text, str) else json.dumps(text)).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def everything(recording: Recording) -> dict[str, Any]:
    """All that a recording gives, as plain lists."""
    markers = [tuple(m) for m in recording.markers()]
    sink = Collected()
    sink.read(0, recording)
    names = sink.every_name
    found: dict[str, Any] = {"markers": markers}
    found["annotations"] = [tuple(m) for m in recording.annotations()]
    for kind in ("launches", "gpu"):
        columns = sink.columns(kind)
        rows = zip(*(c.tolist() for n, c in columns.items() if n != "recording"), strict=True)
        place = list(columns).index("name")
        found[kind] = [(*r[:place], names[r[place]], *r[place + 1 :]) for r in rows]
    found["calls"] = dict(sink.api_calls or {})
    return found


def long_run(layout: Any, count: int = 3000) -> str:
    rng, events = random.Random(1), []
    for i in range(1, count):
        events.append(event("python_function", f"f({i})", round(rng.random() * 1e9, 3)))
        events.append(launch(i * 3, i, dur=rng.randrange(1, 200)))
        more = {"graph id": i % 3, "grid": [i, 1, 1], "blocks per SM": rng.choice([0.5, 12])}
        events.append(kernel(i * 3 + 1, i, f"void k<{i % 40}>", **more))
    return str(layout(document(events)))
