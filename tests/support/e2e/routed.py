"""The usual workload in one process, all of it under vLLM's torch profiler: run by vLLM's Python.

python routed.py MODEL TRACES RESULT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import inside


def main(model: str, traces: str, result: str) -> None:
    """Serve the requests between start and stop of the profiler, and say what vLLM counted."""
    config = {
        "profiler": "torch",
        "torch_profiler_dir": traces,
        "torch_profiler_with_stack": False,
    }
    llm = inside.make_engine(Path(model), profiler_config=config)
    llm.start_profile()
    answered = inside.generate(llm)
    llm.stop_profile()
    found = {"answered": answered, "metrics": inside.counters()}
    Path(result).write_text(json.dumps(found, indent=2) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(*sys.argv[1:])
