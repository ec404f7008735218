"""vLLM's own capture and replay code, one path at a time, with stand-in CUDA graphs.

    python graph_parts.py RESULT PART...

Run by vLLM's own interpreter, also over the sources of other versions (see `test_versions.py`), so
every part asks for what it needs and adapts to signatures that differ. A part that this version
cannot run says why. Parts check themselves that a replay gives what an eager run gives.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fake_cuda
import torch
from graph_parts_common import NotHereError, module
from graph_parts_encoder import encoder
from graph_parts_first import full, piecewise, ubatch
from graph_parts_second import breakable, manager

PARTS: dict[str, Callable[[], None]] = {
    part.__name__: part for part in (full, piecewise, ubatch, manager, breakable, encoder)
}


def main(arguments: Sequence[str]) -> None:
    """See the top of this file."""
    result, *names = arguments
    os.environ["VLLM_DISABLE_COMPILE_CACHE"] = "1"
    from graph_engine import hooks, witnessed

    fake_cuda.install()
    found: dict[str, Any] = {}
    with hooks() as sink:
        for name in names:
            fake_cuda.WITNESSES.clear()
            sink.calls.clear()
            try:
                with torch.inference_mode():
                    PARTS[name]()
            except NotHereError as e:
                found[name] = {"missing": str(e)}
                continue
            emitter = _emitter()
            emitter.flush()
            found[name] = {"messages": list(sink.calls), "graphs": witnessed()}
        found["hooks"] = {h.name: [h.state, h.target or h.why] for h in _status()}
    found["version"] = module("vllm.version").__version__
    Path(result).write_text(json.dumps(found), encoding="ascii")


def _emitter() -> Any:
    from profilemate.annotate import current

    emitter = current.emitter
    assert emitter is not None
    return emitter


def _status() -> Any:
    from profilemate import annotate

    return annotate.status()


if __name__ == "__main__":
    main(sys.argv[1:])
