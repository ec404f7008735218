"""What every part of `graph_parts.py` needs of vLLM."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch

SIZES = (1, 2, 4)


class NotHereError(Exception):
    """This version of vLLM does not have this path, or not in a way that a CPU can run."""


def module(name: str) -> Any:
    """A module of vLLM's."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise NotHereError(f"{type(e).__name__}: {e}") from e


def make_config(mode: str, sizes: Sequence[int] = SIZES) -> Any:
    """A VllmConfig without a model; what the CPU platform clears is put back."""
    config = module("vllm.config")
    made = config.VllmConfig(compilation_config=config.CompilationConfig(cudagraph_mode="NONE"))
    compilation = made.compilation_config
    compilation.cudagraph_mode = config.CUDAGraphMode[mode]
    compilation.cudagraph_capture_sizes = list(sizes)
    compilation.max_cudagraph_capture_size = max(sizes)
    if hasattr(compilation, "post_init_cudagraph_sizes"):
        compilation.post_init_cudagraph_sizes()
    made.scheduler_config.max_num_seqs = max(sizes)
    return made


def runs_as(config: Any, mode: Any, descriptor: Any) -> Any:
    """VLLM's forward context for a run of this mode and descriptor."""
    return module("vllm.forward_context").set_forward_context(
        None,
        config,
        num_tokens=descriptor.num_tokens,
        cudagraph_runtime_mode=mode,
        batch_descriptor=descriptor,
    )


class Toy(torch.nn.Module):  # type: ignore[misc] # torch is not where this is checked
    """A model with one input and one output of eight columns."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x)) + 1


def same(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert torch.allclose(got, expected), (got, expected)
