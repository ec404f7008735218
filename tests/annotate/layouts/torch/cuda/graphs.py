class CUDAGraph:
    def __init__(self):
        self.replays = 0

    def capture_begin(self, pool=None, capture_error_mode="global"):
        pass

    def capture_end(self):
        pass

    def replay(self):
        self.replays += 1


class graph:
    def __init__(self, cuda_graph, pool=None, stream=None):
        self.cuda_graph = cuda_graph

    def __enter__(self):
        self.cuda_graph.capture_begin()

    def __exit__(self, *exc):
        self.cuda_graph.capture_end()
