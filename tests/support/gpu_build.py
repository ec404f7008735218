"""Build nsys exports with GPU activity, and keep what was put into them.

Constructed, not recorded: nsys records GPU activity only where there is a GPU. The tables are those
of real exports; GRAPH_TRACE, which none of them has, is as NVIDIA's documentation describes it.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build import NEWEST, PUSH_POP, VERSIONS, Export, Row, global_tid

GPU_VERSIONS = (*VERSIONS, NEWEST)
LAUNCH_NAMES = ("cudaGraphLaunch_v10000", "cudaGraphLaunch_ptsz_v10000", "cuGraphLaunch")
GRAPH_TRACE = """CREATE TABLE CUPTI_ACTIVITY_KIND_GRAPH_TRACE (
    start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
    contextId INTEGER NOT NULL, streamId INTEGER NOT NULL, correlationId INTEGER,
    globalPid INTEGER, graphId INTEGER NOT NULL, graphExecId INTEGER NOT NULL)"""
_STRINGS = 1000  # numbers of strings from here on; those below are of NVTX texts


@dataclass
class GpuExport:
    """An export of a run of a worker; `launches` and `records` are what it holds.

    Attributes:
        mode: What `--cuda-graph-trace` was: node, graph, or none for neither kind of row.
    """

    version: str = "2023.4.4"
    mode: str = "node"
    seed: int = 1
    pid: int = 100
    tid: int = 101
    launch_name: str = LAUNCH_NAMES[0]
    marked: bool = True
    steps: list[dict[str, Any]] = field(default_factory=list)
    launches: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    _tables: dict[str, list[Mapping[str, object]]] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _graphs: dict[tuple[str, int, int], int] = field(default_factory=dict)
    _correlation: int = 500
    _shift: int = 0

    def write(self, path: Path, shift: int = 0) -> Path:
        """Make up a run and write it."""
        self._shift = shift
        rng = random.Random(self.seed)
        rows = [self._step(i, rng) for i in range(12)]
        graph_trace = self._tables.pop("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", [])
        strings = [{"id": n, "value": text} for text, n in self._names.items()]
        inline = self.version == NEWEST
        Export(
            [Row(*row, PUSH_POP, self.pid, self.tid, inline=inline) for row in rows],
            self.version,
            shift=shift,
            tables={**self._tables, "StringIds": strings},
        ).write(path)
        if self.mode == "graph":
            with closing(sqlite3.connect(path)) as db:
                db.execute(GRAPH_TRACE)
                for row in graph_trace:
                    marks = ", ".join("?" * len(row))
                    names = ", ".join(row)
                    db.execute(
                        f"INSERT INTO CUPTI_ACTIVITY_KIND_GRAPH_TRACE ({names}) VALUES ({marks})",
                        list(row.values()),
                    )
                db.commit()
        return path

    def _step(self, number: int, rng: random.Random) -> tuple[int, str, int]:
        """A step: its text, its launches, and their GPU records long after it has ended."""
        mode, count = rng.choice([("FULL", 1), ("PIECEWISE", 4), ("NONE", 0)])
        size = rng.choice([8, 16])
        begin = 1_000_000 * (number + 1)
        end = begin + 100_000 + rng.randrange(1000)
        self.steps.append({"mode": mode, "begin": begin, "end": end, "size": size, "of": count})
        for piece in range(count):
            at = begin + 10_000 * (piece + 1)
            self._launch(number, piece, at, (mode, size, piece), rng)
        self._eager(begin + 500, rng)
        if not self.marked:
            return begin, f"execute_context_0(0)_generation_{size}({size})", end
        text = (
            f"pm1.step t={begin + 7} ago=7 step={number} mode={mode} num_tokens={size} "
            f"uniform=True has_lora=False unpadded={size - 1} reqs={size - 1} prefill_tokens=0 "
            f"decode_tokens={size - 1} launches={count}"
        )
        return begin, text, end

    def _launch(
        self, step: int, piece: int, at: int, graph: tuple[str, int, int], rng: random.Random
    ) -> None:
        correlation = self._call(self.launch_name, at, at + 3000 + rng.randrange(99))
        number = self._graphs.setdefault(graph, 1 + len(self._graphs))
        self.launches.append({"step": step, "correlation": correlation, "ts": at, "graph": graph})
        start = at + 50_000_000
        nodes = range(1 if self.mode == "graph" else 2 + graph[2])
        for node in nodes if self.mode != "none" else ():
            kind = "kernel" if node != 1 else "memcpy"
            record: dict[str, Any] = {
                "start": start + rng.randrange(3000),
                "correlation": correlation,
                "kind": "graph" if self.mode == "graph" else kind,
                "graph": number,
                "node": (number << 32) + node,
                "name": f"void kernel_{graph[1]}_{node}(int)",
            }
            record["end"] = record["start"] + 1000 + rng.randrange(1000)
            start += rng.choice([500, 2500])  # some overlap, some leave a gap
            self._record(record)

    def _eager(self, at: int, rng: random.Random) -> None:
        correlation = self._call("cudaLaunchKernel_v7000", at, at + 2000)
        start = at + 40_000_000
        name = f"eager_{rng.randrange(3)}"
        self._record(
            {
                "start": start,
                "end": start + 700,
                "correlation": correlation,
                "name": name,
                "kind": "kernel",
                "graph": None,
                "node": None,
            }
        )

    def _call(self, name: str, start: int, end: int) -> int:
        self._correlation += 1
        self.calls[name] = self.calls.get(name, 0) + 1
        row = {
            "start": start + self._shift,
            "end": end + self._shift,
            "globalTid": global_tid(self.pid, self.tid),
            "correlationId": self._correlation,
            "nameId": self._string(name),
        }
        self._tables.setdefault("CUPTI_ACTIVITY_KIND_RUNTIME", []).append(row)
        return self._correlation

    def _record(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        row: dict[str, object] = {
            "start": record["start"] + self._shift,
            "end": record["end"] + self._shift,
            "deviceId": 0,
            "contextId": 1,
            "streamId": 7,
            "correlationId": record["correlation"],
            "globalPid": global_tid(self.pid, 0),
        }
        if record["kind"] == "graph":
            row |= {"graphId": record["graph"], "graphExecId": record["graph"] + 1}
        else:
            row["graphNodeId"] = record["node"]
        if record["kind"] == "kernel":
            row["demangledName"] = row["shortName"] = self._string(record["name"])
            if self.version == NEWEST:
                row["graphId"] = record["graph"] or 0
        table = "GRAPH_TRACE" if record["kind"] == "graph" else record["kind"].upper()
        self._tables.setdefault(f"CUPTI_ACTIVITY_KIND_{table}", []).append(row)

    def _string(self, text: str) -> int:
        return self._names.setdefault(text, _STRINGS + len(self._names))
