"""What findings propose, put to a real vLLM: its flags, its parser, its padding."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from profilemate.insight.findings.capture_sizes import as_config, best_sizes

pytestmark = pytest.mark.real

FOREIGN = {"--cuda-graph-trace", "--threshold", "--thresholds", "--fail-on", "--json"}

PROGRAM = """
import json, sys
from types import SimpleNamespace
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser

parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
asked = json.load(sys.stdin)
told = {"flags": sorted(parser._option_string_actions), "parsed": [], "padded": []}
for value in asked["configs"]:
    config = parser.parse_args(["--compilation-config", value]).compilation_config
    mode = config.cudagraph_mode
    told["parsed"].append([config.cudagraph_capture_sizes, None if mode is None else mode.name])
for sizes, steps in asked["padding"]:
    # vLLM's own mapping from a batch to its graph, without the engine around it.
    dispatcher = object.__new__(CudagraphDispatcher)
    dispatcher.cudagraph_mode = None
    dispatcher.compilation_config = SimpleNamespace(
        max_cudagraph_capture_size=max(sizes), cudagraph_capture_sizes=sizes, compile_sizes=[]
    )
    dispatcher._compute_bs_to_padded_graph_size()
    told["padded"].append([dispatcher._bs_to_padded_graph_size[s] for s in steps])
blocks = parser.parse_args(["--num-gpu-blocks-override", "251"])
told["blocks"] = blocks.num_gpu_blocks_override
print("TOLD", json.dumps(told))
"""

CONFIGS = [as_config([1, 8, 33]), as_config(None, "FULL_DECODE_ONLY"), as_config([2], "FULL")]


def cases() -> list[tuple[list[int], dict[int, int], int]]:
    """Lists that we propose, the steps they are for, and the padding that we say they have."""
    found = []
    for seed in range(20):
        rng = random.Random(seed)
        steps = {rng.randint(1, 512): rng.randint(1, 99) for _ in range(rng.randint(1, 60))}
        proposal = best_sizes(steps, rng.randint(1, 12), largest=rng.choice([0, 512]))[-1]
        found.append((list(proposal.sizes), steps, proposal.padding))
    return found


@pytest.fixture(scope="module")
def told(vllm_python: Path) -> dict[str, Any]:
    asked = {"configs": CONFIGS, "padding": [[sizes, list(steps)] for sizes, steps, _ in cases()]}
    done = subprocess.run(
        [vllm_python, "-c", PROGRAM],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.partition("TOLD ")[2])
    return answer


def test_every_flag_that_a_finding_names_is_vllms(told: dict[str, Any]) -> None:
    sources = (ROOT / "profilemate" / "insight" / "findings").glob("*.py")
    named = {flag for file in sources for flag in re.findall(r"--[a-z][a-z-]+", file.read_text())}
    assert {"--compilation-config", "--gpu-memory-utilization"} <= named
    assert named - FOREIGN <= set(told["flags"])


def test_proposed_configurations_are_understood(told: dict[str, Any]) -> None:
    assert told["parsed"] == [
        [[1, 8, 33], None],
        [None, "FULL_DECODE_ONLY"],
        [[2], "FULL"],
    ]
    assert told["blocks"] == 251


def test_vllm_pads_as_much_as_the_proposal_says(told: dict[str, Any]) -> None:
    for (_, steps, padding), padded in zip(cases(), told["padded"], strict=True):
        added = sum((p - s) * n for p, (s, n) in zip(padded, steps.items(), strict=True))
        assert added == padding
