from dataclasses import dataclass

import torch

from vllm.config import CUDAGraphMode


@dataclass(frozen=True)
class BatchExecutionDescriptor:
    cg_mode: CUDAGraphMode
    num_tokens: int
    num_reqs: int | None
    uniform_token_count: int | None = None
    max_query_len: int | None = None
    num_active_loras: int = 0
    num_ubatches: int = 1


class CudaGraphManager:
    def __init__(self, vllm_config=None):
        self.vllm_config = vllm_config
        self.graphs = {}

    def capture(self, create_forward_fn, progress_bar_desc="Capturing"):
        for size in (4, 2):
            desc = BatchExecutionDescriptor(CUDAGraphMode.FULL, size, size, 1)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                pass
            self.graphs[desc] = graph

    def run_fullgraph(self, desc):
        self.graphs[desc].replay()


class ModelCudaGraphManager(CudaGraphManager):
    def capture(self, model):
        super().capture(lambda desc, warmup: None)

    def run_fullgraph(self, desc):
        super().run_fullgraph(desc)
        return desc.num_tokens


class DecodeSpeculatorCudaGraphManager(CudaGraphManager):
    pass
