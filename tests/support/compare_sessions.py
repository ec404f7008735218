"""Two constructed sessions for the comparison's page: graphs of every outcome, foreign names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from made_session import FOREIGN
from saved_build import coverage, step, usage, write_session

from profilemate.parse.session.saved import SavedSession

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
CHANGE = {8: 1.2, 16: 0.8, 64: 1.06}
"""How much longer graphs take in B; 32 has too few steps, 128 is in A only, 256 in B only."""


def _steps(seed: int, factors: Mapping[int, float], leave_out: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for tokens in SIZES:
        if tokens == leave_out:
            continue
        count = 5 if tokens == 32 else 120 - tokens // 4
        median = (2 + 0.02 * tokens) * factors.get(tokens, 1.0)
        for ms in median * np.exp(0.05 * rng.normal(size=count)):
            at = len(found) / 100
            found.append(step(at, tokens=tokens, graph_gpu_ms=round(float(ms), 6), host_ms=1.5))
    return found


def two(folder: Path, **of_b: Any) -> tuple[SavedSession, SavedSession]:
    """A and B; `of_b` is of B's metadata. A graph of each has a name that is foreign text."""
    versions = {"vllm": "0.32.1", "torch": "2.13.0", "profilemate": "1"}
    found: list[SavedSession] = []
    for name, seed, factors, alone, metadata in (
        ("before", 1, {}, 256, {}),
        ("after", 2, CHANGE, 128, {"versions": versions, **of_b}),
    ):
        steps = _steps(seed, factors, alone)
        steps[0]["descriptor"] = FOREIGN
        tables = {
            "cuda_graph_steps": steps,
            "cuda_graph_coverage": coverage(90 + seed, 5, 5, padding_tokens=40 * seed),
            "kv_cache_usage": usage((0, 100), (30, 400 * seed), (60, 100)),
        }
        found.append(write_session(folder / name, tables, **metadata))
    return found[0], found[1]
