"""A hook of somebody else's on a real vLLM under a real nsys, to its table."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import engine
import pytest
from places import ROOT
from served import profilemate, tool

pytestmark = pytest.mark.real


def test_the_example_of_the_page_on_a_real_engine(
    tmp_path: Path, vllm_python: Path, model: Path
) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example
    (tmp_path / "my_tracking.py").write_text(example[1])
    nsys = tool("PROFILEMATE_TEST_NSYS_2023")
    result = engine.run_offline(
        vllm_python,
        engine.offline_args(model, tmp_path / "counters.json"),
        workdir=tmp_path,
        nsys=nsys,
        env={"PROFILEMATE_PLUGINS": "my_tracking"},
        pythonpath=[ROOT / "profilemate" / "annotate" / "door", tmp_path],
    )
    assert result.report is not None
    assert "a fault of profilemate" not in result.log.read_text()
    session = tmp_path / "session"
    profilemate("parse", result.report, "-o", session, "--nsys", nsys, "--cache", tmp_path / "c")
    with (session / "custom_arrival.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    counted = json.loads((tmp_path / "counters.json").read_text())["metrics"]
    assert len(rows) == counted["vllm:e2e_request_latency_seconds_count"] > 20
    tokens = sum(int(row["prompt_tokens"]) for row in rows)
    assert tokens == counted["vllm:prompt_tokens_total"]
    assert all(row["req"] and int(row["waiting"]) >= 1 for row in rows)
    times = [float(row["timestamp_sec"]) for row in rows]
    assert times == sorted(times)
    # Our own hook of the same method saw the same calls.
    metadata = json.loads((session / "metadata.json").read_text())
    assert metadata["events"]["custom.arrival"] == len(rows)
    assert metadata["events"]["request"] == 2 * len(rows)
    hooks = metadata["hooks"]["installed"]
    assert hooks["custom.arrival Scheduler.add_request"].endswith("Scheduler.add_request")
