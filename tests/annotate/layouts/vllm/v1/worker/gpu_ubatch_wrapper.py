from types import SimpleNamespace

import torch


class UBatchWrapper:
    def __init__(self):
        self.cudagraphs = {}

    def _capture_ubatches(self, ubatch_metadata, model):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            pass
        tokens = sum(m.num_tokens for m in ubatch_metadata)
        self.cudagraphs[tokens] = SimpleNamespace(cudagraph=graph, outputs=tokens)
        return tokens
