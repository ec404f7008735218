"""When a worker's profiler runs, as vLLM 0.32 decides it."""

import torch.profiler


class WorkerProfiler:
    def __init__(self, config):
        self.config = config
        self._active = self._running = False
        self._iterations = self._recorded = 0

    def _call_start(self):
        self._start()
        self._running = True

    def _call_stop(self):
        self._stop()
        self._running = False

    def start(self, *, delay_iterations=None, max_iterations=None):
        if self._active:
            return
        given = delay_iterations, max_iterations
        defaults = self.config.delay_iterations, self.config.max_iterations
        self._delay, self._max = (d if g is None else g for g, d in zip(given, defaults))
        self._active = True
        if self._delay == 0:
            self._call_start()

    def step(self):
        if not self._active:
            return
        self._iterations += 1
        if not self._running and self._delay > 0 and self._iterations == self._delay:
            self._call_start()
        if self._running:
            self._recorded += 1
        if self._max > 0 and self._running and self._recorded > self._max:
            self.stop()

    def stop(self):
        if not self._active:
            return
        self._active = False
        self._iterations = self._recorded = 0
        if self._running:
            self._call_stop()


class TorchProfilerWrapper(WorkerProfiler):
    def _start(self):
        torch.profiler.start()

    def _stop(self):
        torch.profiler.stop()


class CudaProfilerWrapper(WorkerProfiler):
    def _start(self):
        pass

    def _stop(self):
        pass
