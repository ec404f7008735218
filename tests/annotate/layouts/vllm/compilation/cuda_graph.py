from types import SimpleNamespace

import torch

from vllm import forward_context


class CUDAGraphWrapper:
    def __init__(self, runnable, runtime_mode):
        self.runnable = runnable
        self.runtime_mode = runtime_mode
        self.concrete_cudagraph_entries = {}

    def __getattr__(self, name):
        if hasattr(self.runnable, name):
            return getattr(self.runnable, name)
        raise AttributeError(name)

    def __call__(self, *args, **kwargs):
        context = forward_context._forward_context
        if context is None or context.cudagraph_runtime_mode != self.runtime_mode:
            return self.runnable(*args, **kwargs)
        entry = self.concrete_cudagraph_entries.setdefault(
            context.batch_descriptor, SimpleNamespace(cudagraph=None, output=None)
        )
        if entry.cudagraph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                entry.output = self.runnable(*args, **kwargs)
            entry.cudagraph = graph
            return entry.output
        entry.cudagraph.replay()
        return entry.output
