from vllm.config import CUDAGraphMode
from vllm.v1.worker.gpu.cudagraph_utils import BatchExecutionDescriptor


def dispatch_cg_and_sync_dp(cudagraph_manager, num_reqs, num_tokens, uniform_token_count, *, dp=1):
    for desc in reversed(cudagraph_manager.graphs):
        if uniform_token_count == 1 and desc.num_tokens >= num_tokens:
            return desc, None
    return BatchExecutionDescriptor(CUDAGraphMode.NONE, num_tokens, num_reqs), None
