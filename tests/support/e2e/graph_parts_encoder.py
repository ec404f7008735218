"""The path of multi-modal encoders."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import fake_cuda
import torch
from graph_parts_common import NotHereError, module, same


def encoder() -> None:
    """EncoderCudaGraphManager: two items on the graph for eight tokens, one that fits none."""
    ec = module("vllm.v1.worker.encoder_cudagraph")
    defs = module("vllm.v1.worker.encoder_cudagraph_defs")
    if "values" not in inspect.signature(defs.EncoderCudaGraphCaptureInputs).parameters:
        raise NotHereError("this version asks its models other questions")
    ec.current_stream = fake_cuda.Stream
    multimodal = SimpleNamespace(
        get_limit_per_prompt=lambda modality: 0, mm_encoder_tp_mode="weights"
    )
    config = SimpleNamespace(
        compilation_config=SimpleNamespace(
            encoder_cudagraph_token_budgets=[4, 8],
            encoder_cudagraph_max_vision_items_per_batch=2,
            encoder_cudagraph_max_frames_per_batch=None,
        ),
        model_config=SimpleNamespace(multimodal_config=multimodal),
        parallel_config=SimpleNamespace(tensor_parallel_size=1),
    )
    made = ec.EncoderCudaGraphManager(config, torch.device("cpu"), torch.float32, _Encoder(defs))
    made.capture(graph_pool=(0, 2))
    x = torch.randn(15, 8)
    outputs = made.execute({"n": [3, 2, 10], "x": x})
    same(torch.cat(outputs), x * 2 + 1)
    assert (made.graph_hits, made.graph_misses) == (2, 1)


class _Encoder:
    """The questions that vLLM asks a model whose encoder runs on graphs."""

    def __init__(self, defs: Any) -> None:
        self._defs = defs

    def get_encoder_cudagraph_config(self) -> Any:
        return self._defs.EncoderCudaGraphConfig(
            modalities=["image"], buffer_keys=["x"], out_hidden_size=8
        )

    def prepare_encoder_cudagraph_capture_inputs(self, budget: int, *args: Any) -> Any:
        return self._defs.EncoderCudaGraphCaptureInputs(values={"x": torch.zeros(budget, 8)})

    def encoder_cudagraph_forward(self, values: Any, path: str = "default") -> Any:
        return values["x"] * 2 + 1

    def encoder_eager_forward(self, kwargs: Any, path: str = "default") -> Any:
        return kwargs["x"] * 2 + 1

    def get_encoder_cudagraph_item_specs(self, kwargs: Any) -> Any:
        return [self._defs.EncoderItemSpec(n, n) for n in kwargs["n"]]

    def select_encoder_cudagraph_items(self, kwargs: Any, indices: Sequence[int]) -> Any:
        parts = torch.split(kwargs["x"], kwargs["n"])
        return {
            "n": [kwargs["n"][i] for i in indices],
            "x": torch.cat([parts[i] for i in indices]),
        }

    def prepare_encoder_cudagraph_replay_buffers(self, kwargs: Any, *args: Any) -> Any:
        return self._defs.EncoderCudaGraphReplayBuffers(values={"x": kwargs["x"]})

    def postprocess_encoder_output(
        self,
        outputs: Any,
        indices: Sequence[int],
        per_item: Sequence[int],
        destination: Any,
        clone: bool = True,
        batch_mm_kwargs: Any = None,
    ) -> None:
        # By path since vLLM 0.28.
        out, place = outputs["default"] if isinstance(outputs, dict) else outputs, 0
        for i in indices:
            destination[i] = out[place : place + per_item[i]].clone()
            place += per_item[i]
