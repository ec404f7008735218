import torch

from vllm.compilation.cuda_graph import CUDAGraphWrapper
from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor, set_forward_context
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher


class Piece:
    """One compiled piece, as CUDAGraphWrapper finds it."""

    def __init__(self, index, total, model="backbone"):
        self.piecewise_compile_index = index
        self.total_piecewise_compiles = total
        self.vllm_backend = type("Backend", (), {"prefix": model})()

    def __call__(self, x):
        return x


class GPUModelRunner:
    """Sizes 2 and 4; FULL for uniform batches, PIECEWISE (3 pieces) for others, eager above."""

    def __init__(self):
        self.pieces = [
            CUDAGraphWrapper(Piece(i, 3), CUDAGraphMode.PIECEWISE) for i in range(3)
        ]
        self.model = CUDAGraphWrapper(self._forward, CUDAGraphMode.FULL)
        self.drafter = CUDAGraphWrapper(
            Piece(0, 1, "eagle_head"), CUDAGraphMode.PIECEWISE
        )
        self.encoder = torch.cuda.CUDAGraph()

    def _forward(self, x):
        for piece in self.pieces:
            x = piece(x)
        return x

    def _determine_batch_execution_and_padding(
        self, num_tokens, num_reqs, num_scheduled_tokens_np=None, force_uniform_decode=None
    ):
        size = next((s for s in (2, 4) if s >= num_tokens), None)
        if size is None:
            return CUDAGraphMode.NONE, BatchDescriptor(num_tokens), False, None, None
        if num_tokens == num_reqs or force_uniform_decode:
            return CUDAGraphMode.FULL, BatchDescriptor(size, size, True), False, None, None
        return CUDAGraphMode.PIECEWISE, BatchDescriptor(size), False, None, None

    def execute_model(self, scheduler_output, intermediate_tensors=None):
        tokens = scheduler_output.total_num_scheduled_tokens
        if tokens == 0:
            return 0
        reqs = len(scheduler_output.num_scheduled_tokens)
        mode, descriptor, *_ = self._determine_batch_execution_and_padding(tokens, num_reqs=reqs)
        with set_forward_context(mode, descriptor):
            self.model(descriptor.num_tokens)
        return tokens

    def sample_tokens(self, descriptor):
        with set_forward_context(CUDAGraphMode.PIECEWISE, descriptor):
            self.drafter(1)

    def _dummy_run(self, num_tokens, mode=None, uniform=True):
        found, descriptor, *_ = self._determine_batch_execution_and_padding(
            num_tokens, num_tokens if uniform else 1, force_uniform_decode=uniform
        )
        with set_forward_context(mode or found, descriptor):
            self.model(num_tokens)
        if not uniform:
            with set_forward_context(mode or found, descriptor):
                self.drafter(num_tokens)

    def capture_model(self):
        for uniform in (False, True):
            for size in (4, 2):
                self._dummy_run(size, CUDAGraphMode.NONE, uniform)
                self._dummy_run(size, None, uniform)

    def profile_cudagraph_memory(self):
        self._dummy_run(4, None, True)
        for wrapper in (self.model, *self.pieces, self.drafter):
            wrapper.concrete_cudagraph_entries.clear()
        return 1
