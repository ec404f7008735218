"""Scopes that are kept while the profiler runs: `TRACE` has (begin or end, name)."""

from torch.autograd import profiler

TRACE = []


class record_function:
    def __init__(self, name):
        self.name = name
        self.seen = False

    def __enter__(self):
        self.seen = profiler._is_profiler_enabled
        if self.seen:
            TRACE.append(("begin", self.name))
        return self

    def __exit__(self, *error):
        if self.seen and profiler._is_profiler_enabled:
            TRACE.append(("end", self.name))


def start():
    profiler._is_profiler_enabled = True


def stop():
    profiler._is_profiler_enabled = False
