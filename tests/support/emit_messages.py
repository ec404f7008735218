"""Emit messages of ours and of others through nvtx, and say what was emitted: run under nsys."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import nvtx

from profilemate import schema
from profilemate.schema import Event


def main(steps: int, truth: Path) -> None:
    """Emit so many steps; write what was emitted, in order, to `truth`."""
    emitted: list[dict[str, object]] = []

    def note(text: str, kind: str, domain: str) -> str:
        emitted.append(
            {
                "text": text,
                "kind": kind,
                "domain": domain,
                "tid": threading.get_native_id(),
                "mono_ns": time.monotonic_ns(),
            }
        )
        return text

    def mark(text: str, domain: str = schema.DOMAIN) -> None:
        nvtx.mark(message=note(text, "mark", domain), domain=domain)

    def in_a_thread() -> None:
        text = note("pm1.preempt req=of%20a%20thread", "range", "other")
        started = nvtx.start_range(message=text, domain="other")
        time.sleep(0.005)
        nvtx.end_range(started)

    clocks = {"unix_ns": time.time_ns(), "mono_ns": time.monotonic_ns()}
    session = Event("session", {"role": "engine", "pid": os.getpid(), "host": "box-7", **clocks})
    mark(schema.encode(session, t=clocks["mono_ns"]))
    for step in range(steps):
        now = time.monotonic_ns()
        events = [
            Event("kv.alloc", {"ago": 900, "dur": 3, "ids": (step, step + 1), "used": step}),
            Event("kv.free", {"ago": 100, "ids": (step,), "used": step}),
        ]
        mark(schema.encode_batch([schema.encode_event(e) for e in events], t=now, seq=step))
        text = schema.encode(Event("step", {"step": step}), t=time.monotonic_ns())
        with nvtx.annotate(message=note(text, "range", schema.DOMAIN), domain=schema.DOMAIN):
            time.sleep(0.001)
        with nvtx.annotate(message="aten::someone_else", color="red"):
            pass
        nvtx.mark("pm1 is not our prefix")
    mark("pm1.preempt req=default-domain", "NVTX")
    scattered = Event("kv.evict", {"ids": tuple(range(0, 60_000, 2))})
    big = schema.encode(scattered, t=time.monotonic_ns())
    for part in schema.split(big, number=1):
        mark(part)
    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    # Left open: the recording ends first.
    text = note("pm1.preempt req=open", "open", schema.DOMAIN)
    nvtx.push_range(message=text, domain=schema.DOMAIN)
    window = (clocks["unix_ns"], time.time_ns())
    truth.write_text(json.dumps({"pid": os.getpid(), "emitted": emitted, "unix_ns": window}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
