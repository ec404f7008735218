"""Records CUDA graphs on a real GPU through our own annotations, for whoever has one at hand.

torch's CUDA graphs, captured and replayed as vLLM does it (whole graphs and pieces, padded and
eager steps), annotated by the hooks that run in vLLM. The torch profiler records it, and with
`--nsys` Nsight Systems too. What comes out lies beside the other bundled recordings, trimmed to
what the readers need; `pytest tests/test_golden.py --update-references` then writes its golden
tables.

Needs torch with CUDA in the Python that runs it, and profilemate.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"

SIZES = (8, 16)
"""Padded tokens of the whole graphs."""

PIECES = 3
PIECEWISE_TOKENS = 32

STEPS = [("FULL", 5), ("FULL", 8), ("FULL", 13), ("PIECEWISE", 29), ("NONE", 40)] * 4
"""Mode and unpadded tokens of each step."""

KEPT = ("kernel", "gpu_memcpy", "gpu_memset")
KEPT_CALLS = ("cuda_runtime", "cuda_driver")


class Model:
    """A few layers with their graphs: one per size, and pieces for one more size."""

    def __init__(self, torch: Any, emitter: Any, device: str) -> None:
        self._torch, self._emitter = torch, emitter
        rows = max(64, *(n for _, n in STEPS))
        self._x = torch.randn(rows, 128, device=device)
        self._layers = [torch.randn(128, 128, device=device) for _ in range(PIECES)]
        self._graphs: dict[tuple[Any, ...], list[Any]] = {}

    def layer(self, number: int, tokens: int) -> Any:
        """One layer: a product and two pointwise kernels."""
        return self._torch.relu(self._x[:tokens] @ self._layers[number]) + 1

    def capture(self) -> None:
        """Capture every graph, largest first, as vLLM does."""
        for tokens in sorted(SIZES, reverse=True):
            self._capture(_key("FULL", tokens), tokens, [range(PIECES)])
        pieces = [range(i, i + 1) for i in range(PIECES)]
        self._capture(_key("PIECEWISE", PIECEWISE_TOKENS), PIECEWISE_TOKENS, pieces)
        self._emitter.graphs.emit_unclaimed()
        self._emitter.flush()

    def _capture(self, key: tuple[Any, ...], tokens: int, parts: list[range]) -> None:
        for piece, layers in enumerate(parts):
            for number in layers:
                self.layer(number, tokens)  # the warm-up that a capture needs
            graph = self._torch.cuda.CUDAGraph()
            with self._torch.cuda.graph(graph):
                for number in layers:
                    self.layer(number, tokens)
            whole = len(parts) == 1
            place = {} if whole else {"piece": piece, "pieces": len(parts)}
            self._emitter.graphs.claim(graph, key, self, main=True, **place)
            self._graphs.setdefault(key, []).append(graph)

    def step(self, number: int, mode: str, tokens: int) -> None:
        """Run one step the way it is asked for, annotated like `Worker.execute_model`."""
        step = self._emitter.step
        padded = tokens
        if mode == "FULL":
            padded = min(size for size in SIZES if size >= tokens)
        elif mode == "PIECEWISE":
            padded = PIECEWISE_TOKENS
        key = _key(mode, padded)
        step.begin(number, (tokens, tokens, 0, tokens))
        try:
            step.dispatched(key, tokens)
            for graph in self._graphs.get(key, ()):
                graph.replay()
            if mode == "NONE":
                for layer in range(PIECES):
                    self.layer(layer, tokens)
        finally:
            step.end()
            self._emitter.flush()


def _key(mode: str, tokens: int) -> tuple[Any, ...]:
    uniform = mode == "FULL"
    return (mode, tokens, tokens if uniform else None, uniform, False, None, None)


def drive(torch: Any, device: str = "cuda") -> int:
    """Capture and run everything; returns the number of launches that were asked for."""
    from profilemate import annotate
    from profilemate.annotate import current
    from profilemate.annotate.settings import Settings

    annotate.install(Settings(wanted=True, mode="on", reason="scripts/record_gpu"))
    emitter = current.emitter
    assert emitter is not None
    emitter.identity.saw_worker(0, None)
    emitter.advance(1)
    model = Model(torch, emitter, device)
    model.capture()
    launches = 0
    for number, (mode, tokens) in enumerate(STEPS, 1):
        model.step(number, mode, tokens)
        launches += {"FULL": 1, "PIECEWISE": PIECES, "NONE": 0}[mode]
    annotate.uninstall()
    return launches


def record(torch: Any, target: Path, device: str = "cuda") -> int:
    """Record with the torch profiler into `target` (.json.gz), trimmed; returns the launches."""
    with tempfile.TemporaryDirectory(prefix="recording-") as folder:
        whole = Path(folder) / "trace.json"
        with torch.profiler.profile() as profiler:
            launches = drive(torch, device)
            if device == "cuda":
                torch.cuda.synchronize()  # the end of the run: nothing is measured any more
        profiler.export_chrome_trace(str(whole))
        trace = json.loads(whole.read_text())
    events = [e for e in trace["traceEvents"] if _is_kept(e)]
    kept = {"schemaVersion": trace.get("schemaVersion"), "traceEvents": events}
    kept["baseTimeNanoseconds"] = trace.get("baseTimeNanoseconds")
    target.parent.mkdir(parents=True, exist_ok=True)
    with gzip.GzipFile(target, "wb", mtime=0) as file:
        file.write(json.dumps(kept).encode())
    return launches


def _is_kept(event: dict[str, Any]) -> bool:
    category, name = event.get("cat", ""), event.get("name", "")
    call = category in KEPT_CALLS and "GraphLaunch" in name
    return category in KEPT or call or name.startswith("pm1.")


def record_nsys(nsys: str, target: Path) -> None:
    """Record the same with Nsight Systems, graph nodes and all, and scrub its export."""
    from profilemate.scrub.scrub import scrub

    with tempfile.TemporaryDirectory(prefix="recording-") as folder:
        report = Path(folder) / "recording.nsys-rep"
        options = ["-t", "cuda,nvtx", "--cuda-graph-trace=node", "-s", "none", "-o", str(report)]
        command = [nsys, "profile", *options, sys.executable, str(Path(__file__)), "--drive"]
        subprocess.run(command, check=True)
        scrub(report, target, force=True, nsys=nsys)


def main() -> None:
    """Record what this machine can."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nsys", help="record with this nsys too")
    parser.add_argument("--drive", action="store_true", help="run only, for a recorder around it")
    parser.add_argument("-o", "--output", type=Path, default=DATA, help="folder of recordings")
    options = parser.parse_args()
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        raise SystemExit("record_gpu needs a CUDA device, and torch sees none")
    if options.drive:
        drive(torch)
        torch.cuda.synchronize()
        return
    target = options.output / "torch_cuda_graphs" / "recording.json.gz"
    print(f"{record(torch, target)} launches recorded in {target}")
    if options.nsys:
        target = options.output / "nsys_cuda_graphs" / "recording.sqlite"
        target.parent.mkdir(parents=True, exist_ok=True)
        record_nsys(options.nsys, target)
        print(f"recorded in {target}")


if __name__ == "__main__":
    main()
