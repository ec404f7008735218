"""A whole engine with stand-in CUDA graphs, and what everybody counted in it.

    python graph_engine.py MODEL MODE HOOKS RESULT

Run by vLLM's own interpreter, through `engine.run_offline`. `HOOKS` is `on`, `off`, `launches` (a
range for every launch), `recorded` (what the recorder of this process gets) or `profiled` (like
`launches`, and a torch profiler around the requests writes RESULT.trace). The result has the
tokens, what the stand-in counted itself, vLLM's own table of `--cudagraph-metrics`, and, with
hooks, our messages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from engine import Request
from inside import make_engine

SIZES = (1, 2, 4, 8)
NUM_BLOCKS = 64

# Prompts longer than a step (64 tokens), prompts so short that they fit a graph, more requests at
# once than any graph takes, and different lengths so that the batch shrinks step by step.
REQUESTS = [
    [Request("hello " * (1 + i % 3), 4 + i) for i in range(5)],
    [Request("abc", 3), Request("de", 3)],
    [Request("x" * 150, 6), Request("yes", 12)],
    [Request(f"number {i} of ten", 5) for i in range(10)],
]


class ListSink:
    """Keeps every call, as a recorder would get it."""

    name = "list"
    scope: Literal["always"] = "always"

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def mark(self, text: str) -> None:
        self.calls.append(("mark", text))

    def push(self, text: str) -> None:
        self.calls.append(("push", text))

    def pop(self) -> None:
        self.calls.append(("pop", ""))

    def flush(self) -> None:
        """Everything is kept already."""


@contextlib.contextmanager
def hooks(*, recorded: bool = False, profiled: bool = False, **settings: Any) -> Iterator[ListSink]:
    """Install the hooks with a sink that keeps what it gets; nothing is left in the buffer."""
    from profilemate import annotate
    from profilemate.annotate import current, sinks
    from profilemate.annotate.settings import Settings

    sink = ListSink()
    both = sinks.open_sinks

    def open_sinks(settings: Settings, env: Any) -> tuple[list[Any], str]:
        return [sink, *(both(settings, env)[0] if profiled else ())], ""

    if not recorded:
        sinks.open_sinks = open_sinks
    annotate.install(Settings(wanted=True, reason="a test", **settings))
    try:
        yield sink
        emitter = current.emitter
        assert emitter is not None
        assert emitter.faults.count == 0, emitter.faults.first
    finally:
        annotate.uninstall()


def watch_metrics() -> Any:
    """vLLM's own aggregation of its CUDA graph statistics, fed with every step's."""
    logging: Any = importlib.import_module("vllm.compilation.cuda_graph").CUDAGraphLogging
    every = logging(None, None)
    observe = logging.observe

    def observing(self: Any, stat: Any) -> None:
        every.stats.append(stat)
        observe(self, stat)

    logging.observe = observing
    return every


def table(every: Any) -> list[list[str]]:
    """The rows of the table that vLLM logs."""
    lines = [line for line in every.generate_metric_table().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def generate(llm: Any) -> list[list[int]]:
    """The tokens of every answer."""
    vllm: Any = importlib.import_module("vllm")
    tokens: list[list[int]] = []
    for phase in REQUESTS:
        parameters = [
            vllm.SamplingParams(max_tokens=r.max_tokens, temperature=0, ignore_eos=True)
            for r in phase
        ]
        outputs = llm.generate([r.prompt for r in phase], parameters, use_tqdm=False)
        tokens += [list(output.outputs[0].token_ids) for output in outputs]
    return tokens


def witnessed() -> list[dict[str, Any]]:
    """What the stand-in saw of every graph: its place in vLLM at the capture, and its replays."""
    import fake_cuda

    rows = []
    for witness in fake_cuda.WITNESSES:
        mode, descriptor = witness.context or (None, None)
        rows.append({"mode": mode, **_fields(descriptor), "replays": witness.replays})
    return rows


def _fields(descriptor: Any) -> dict[str, Any]:
    if descriptor is None:
        return {}
    if hasattr(descriptor, "_asdict"):  # up to vLLM 0.16
        fields = dict(descriptor._asdict())
        return {"uniform": fields.pop("uniform_decode"), **fields} if len(fields) == 2 else fields
    return dataclasses.asdict(descriptor)


@contextlib.contextmanager
def profiler(trace: str) -> Iterator[None]:
    """A torch profiler, as a user starts one."""
    profile: Any = importlib.import_module("torch.profiler").profile
    with profile() as running:
        yield
    running.export_chrome_trace(trace)


def main(arguments: Sequence[str]) -> None:
    """See the top of this file."""
    model, mode, wanted, result = arguments
    os.environ["VLLM_DISABLE_COMPILE_CACHE"] = "1"
    import fake_cuda

    fake_cuda.install()
    settings: dict[str, Any] = {"launches": wanted in ("launches", "profiled")}
    settings |= {name: wanted == name for name in ("recorded", "profiled")}
    if wanted == "recorded":  # by nsys, and by a live session beside the result
        settings |= {"live": True, "directory": str(Path(result).parent / "live")}
    with contextlib.nullcontext() if wanted == "off" else hooks(**settings) as sink:
        fake_cuda.force_cudagraphs_on_cpu(mode, SIZES)
        every = watch_metrics()
        llm = make_engine(
            Path(model),
            NUM_BLOCKS,
            enforce_eager=False,
            cudagraph_metrics=True,
            max_num_batched_tokens=64,
        )
        started = 0 if sink is None else len(sink.calls)
        with profiler(f"{result}.trace") if wanted == "profiled" else contextlib.nullcontext():
            tokens = generate(llm)
        found = {"tokens": tokens, "table": table(every), "graphs": witnessed()}
        found["started"] = started
    found["messages"] = [] if sink is None else sink.calls
    Path(result).write_text(json.dumps(found), encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
