from types import SimpleNamespace

import torch

from vllm import forward_context


class BreakableCUDAGraphWrapper:
    """Its runnable is a list of functions; those called `eager` break the capture."""

    def __init__(self, runnable):
        self.runnable = runnable
        self.entries = {}

    def __call__(self, *args):
        descriptor = forward_context.get_forward_context().batch_descriptor
        entry = self.entries.get(descriptor)
        if entry is None:
            entry = SimpleNamespace(batch_descriptor=descriptor, capture=None)
            self.entries[descriptor] = entry
        if entry.capture is None:
            return self._capture(entry, args, {})
        for segment in entry.capture.segments:
            segment()

    def _capture(self, entry, args, kwargs):
        segments = []
        for function in self.runnable:
            if function.__name__ == "eager":
                segments.append(function)
                continue
            graph = torch.cuda.CUDAGraph()
            graph.capture_begin()
            function()
            graph.capture_end()
            segments.append(graph.replay)
        entry.capture = SimpleNamespace(segments=segments)
