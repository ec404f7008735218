from torch.cuda.graphs import CUDAGraph, graph
