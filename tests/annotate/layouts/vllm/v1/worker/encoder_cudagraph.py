from types import SimpleNamespace

import torch


class EncoderCudaGraphManager:
    def __init__(self):
        self.budget_graphs = {}

    def _capture_budget_graph(self, token_budget, path="default", axis_keys=()):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            pass
        key = (token_budget, axis_keys) if axis_keys else token_budget
        self.budget_graphs.setdefault(path, {})[key] = SimpleNamespace(graph=graph)
