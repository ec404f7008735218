"""A graph's name as a person says it, the same in findings and comparisons."""

from __future__ import annotations

import pandas as pd

from profilemate.parse.session.saved import GRAPH_COLUMNS


def graph_names(frame: pd.DataFrame) -> list[str]:
    """Short names of the graphs of a table that leads with the graph key.

    `FULL 256`, `PIECEWISE 512 lora`, `FULL 64 reqs=16`, `FULL kernels:5c8ac6bd`: the mode, the
    padded tokens, requests only where they are not the tokens, and what else tells graphs apart.
    """
    columns = [c for c in GRAPH_COLUMNS if c in frame.columns]
    return [_name(dict(zip(columns, row, strict=True))) for row in _rows(frame[columns])]


def _rows(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    return list(frame.astype("string").fillna("").itertuples(index=False, name=None))


def _name(of: dict[str, str]) -> str:
    words = [of.get("runtime_mode") or "graph", of.get("num_tokens", "")]
    requests = of.get("num_reqs", "")
    if requests and requests != of.get("num_tokens"):
        words.append(f"reqs={requests}")
    if of.get("has_lora") == "True":
        adapters = of.get("num_active_loras", "")
        words.append(f"lora={adapters}" if adapters not in ("", "0") else "lora")
    words.append(of.get("descriptor", ""))
    return " ".join(w for w in words if w)
