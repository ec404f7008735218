"""scripts/record_gpu, as far as it goes without a GPU: under the real torch profiler, with stand-in
graphs. It shows that the script runs and that its recording is read; not that a GPU was there."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import engine
import pandas as pd
import pytest
from places import INSIDE, ROOT
from served import profilemate

pytestmark = pytest.mark.real

RUN = """
import sys
from pathlib import Path
import fake_cuda
fake_cuda.install()
import torch
import record_gpu
launches = record_gpu.record(torch, Path(sys.argv[1]), device="cpu")
replays = sum(w.replays for w in fake_cuda.WITNESSES)
print("RESULT", launches, replays, len(fake_cuda.WITNESSES), flush=True)
import os
os._exit(0)
"""


def test_the_script_s_recording_is_read(tmp_path: Path, vllm_python: Path) -> None:
    target = tmp_path / "recording.json.gz"
    path = [str(ROOT), str(ROOT / "scripts" / "data"), str(INSIDE)]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "HF_HUB_OFFLINE": "1",
        **engine.NO_DOOR,
    }
    done = subprocess.run(
        [vllm_python, "-c", RUN, target], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "a fault of profilemate" not in done.stderr
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("RESULT")]
    asked, replays, captures = map(int, line.split()[1:])
    assert asked == replays > 0
    session = tmp_path / "session"
    profilemate("parse", target, "-o", session)
    assert len(pd.read_csv(session / "cuda_graph_captures.csv")) == captures - 2 == 3
    steps = pd.read_csv(session / "cuda_graph_steps.csv")
    assert Counter(steps["runtime_mode"]) == {"FULL": 12, "PIECEWISE": 4, "NONE": 4}
    assert steps["expected_launches"].sum() == replays
    padding = pd.read_csv(session / "cuda_graph_padding.csv")
    assert (padding["padded_tokens"] - padding["unpadded_tokens"]).tolist() == (
        padding["num_paddings"].tolist()
    )
    metadata = json.loads((session / "metadata.json").read_text())
    assert metadata["versions"]["torch"]


def test_without_a_gpu_it_says_so(vllm_python: Path) -> None:
    done = subprocess.run(
        [vllm_python, ROOT / "scripts" / "data" / "record_gpu.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **engine.NO_DOOR},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "needs a CUDA device" in done.stderr
