"""Runtime modes of a model step, in the words of vLLM's CUDAGraphMode, which stand only here."""

from __future__ import annotations

FULL = "FULL"
PIECEWISE = "PIECEWISE"
EAGER = "NONE"
"""CUDAGraphMode's word for a step without a graph; a mode that nobody says is None."""

GRAPH_MODES = (FULL, PIECEWISE)
MODES = (*GRAPH_MODES, EAGER)


def on_graph(mode: str | None) -> bool:
    """Whether a step of this mode ran on a CUDA graph; a mode that nobody says is none."""
    return mode in GRAPH_MODES
