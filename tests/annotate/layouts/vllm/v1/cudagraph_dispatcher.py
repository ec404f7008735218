class CudagraphDispatcher:
    """As vLLM 0.11 has it: the descriptor comes in, mode and descriptor or None go out."""

    def __init__(self, keys):
        self.keys = keys

    def dispatch(self, batch_descriptor):
        mode = self.keys.get(batch_descriptor)
        if mode is None:
            from vllm.config import CUDAGraphMode

            return CUDAGraphMode.NONE, None
        return mode, batch_descriptor
