"""Steps and launches in one line each, for tests that build a small trace."""

from __future__ import annotations

from typing import Any

from frames import At, at

FULL: dict[str, Any] = {
    "mode": "FULL",
    "num_tokens": 256,
    "num_reqs": 128,
    "uniform": True,
    "has_lora": False,
    "num_active_loras": 0,
}
PIECEWISE: dict[str, Any] = {
    "mode": "PIECEWISE",
    "num_tokens": 512,
    "uniform": False,
    "has_lora": False,
    "num_active_loras": 0,
}
EAGER: dict[str, Any] = {"mode": "NONE", "num_tokens": 4000}


def step(ts: int, number: int | None, key: dict[str, Any], **values: Any) -> At:
    return at(ts, "step", dur=90, **key, **values, **({} if number is None else {"step": number}))


def replay(ts: int, number: int | None, key: dict[str, Any], *, pid: int = 1, **values: Any) -> At:
    said = {} if number is None else {"step": number}
    return at(ts, "graph.replay", dur=2, pid=pid, **key, **values, **said)
