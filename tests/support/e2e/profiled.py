"""An engine in this process under a torch profiler, and what others counted meanwhile.

    python profiled.py configured MODEL
    python profiled.py run MODEL TRACES RESULT HOW [DELAY LIMIT]

Run by vLLM's own interpreter. `configured` makes configurations without and with a torch profiler
and prints what became of the hooks. `run` serves a part of the usual requests outside and a part
inside the window of a profiler: `vllm`'s own (`LLM.start_profile`, with its delay and its limit),
or the `user`'s around the call.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import engine
import inside

BEFORE = engine.phases()[:1]
WITHIN = [engine.phases()[1], engine.phases()[3][:6]]
AFTER = engine.phases()[4:5]


def config(traces: str, delay: str = "0", limit: str = "0") -> dict[str, Any]:
    """vLLM's ProfilerConfig; without stacks, which take a minute to write."""
    return {
        "profiler": "torch",
        "torch_profiler_dir": traces,
        "torch_profiler_with_stack": False,
        "delay_iterations": int(delay),
        "max_iterations": int(limit),
    }


def configured(model: str) -> None:
    """Say what `annotate` did before and after a torch profiler was configured."""
    arguments: Any = importlib.import_module("vllm.engine.arg_utils").EngineArgs
    from profilemate import annotate

    def said() -> list[Any]:
        states = [h.state for h in annotate.status()]
        return [len(states), states.count("installed"), os.environ.get("PROFILEMATE_TORCH")]

    arguments(model=model).create_engine_config()
    without = said()
    arguments(model=model, profiler_config=config("/tmp/traces")).create_engine_config()
    print("RESULT", json.dumps([without, said()]), flush=True)


def run(model: str, traces: str, result: str, how: str, *bounds: str) -> None:
    """See the top of this file."""
    mine = how == "vllm"
    options: dict[str, Any] = {"profiler_config": config(traces, *bounds)} if mine else {}
    llm = inside.make_engine(Path(model), **options)
    core = llm.llm_engine.engine_core.engine_core
    executor, tokens = core.model_executor, []
    execute = executor.execute_model

    def counted(output: Any, *args: Any, **kwargs: Any) -> Any:
        tokens.append(output.total_num_scheduled_tokens)
        return execute(output, *args, **kwargs)

    executor.execute_model = counted
    inside.generate(llm, BEFORE)
    before, began = len(tokens), time.monotonic_ns()
    if mine:
        llm.start_profile()
        inside.generate(llm, WITHIN)
        ended = time.monotonic_ns()
        llm.stop_profile()
    else:
        profiler: Any = importlib.import_module("torch.profiler").profile()
        with profiler:
            inside.generate(llm, WITHIN)
            ended = time.monotonic_ns()
        profiler.export_chrome_trace(str(Path(traces) / "user.pt.trace.json"))
    inside_ = len(tokens)
    inside.generate(llm, AFTER)
    found = {"before": before, "inside": inside_, "tokens": tokens, "ns": [began, ended]}
    Path(result).write_text(json.dumps(found), encoding="ascii")


def main(arguments: Sequence[str]) -> None:
    """Dispatch."""
    match arguments:
        case ["configured", model]:
            configured(model)
        case ["run", *others]:
            run(*others)
        case _:
            raise SystemExit(f"profiled.py: unknown arguments {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
