from vllm.config import CUDAGraphMode
from vllm.v1.worker.gpu.cudagraph_utils import (
    DecodeSpeculatorCudaGraphManager,
    ModelCudaGraphManager,
)
from vllm.v1.worker.gpu.dp_utils import dispatch_cg_and_sync_dp


class GPUModelRunner:
    def __init__(self):
        self.cudagraph_manager = ModelCudaGraphManager()
        self.drafter = DecodeSpeculatorCudaGraphManager()

    def capture_model(self, *, profile_only=False):
        self.cudagraph_manager.capture("a model")
        self.drafter.capture(lambda desc, warmup: None)

    def profile_cudagraph_memory(self):
        self.capture_model(profile_only=True)
        self.cudagraph_manager.graphs.clear()
        self.drafter.graphs.clear()

    def execute_model(self, scheduler_output, intermediate_tensors=None, dummy_run=False):
        tokens = scheduler_output.total_num_scheduled_tokens
        if not tokens:
            return None
        reqs = len(scheduler_output.num_scheduled_tokens)
        desc, _ = dispatch_cg_and_sync_dp(
            self.cudagraph_manager, reqs, tokens, 1 if tokens == reqs else None
        )
        if desc.cg_mode == CUDAGraphMode.FULL:
            self.cudagraph_manager.run_fullgraph(desc)
        return desc
