import enum


class CUDAGraphMode(enum.Enum):
    NONE = 0
    PIECEWISE = 1
    FULL = 2


class VllmConfig:
    def __init__(self, profiler_config=None):
        self.profiler_config = profiler_config
        self.__post_init__()

    def __post_init__(self):
        self.complete = True
