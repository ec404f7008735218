from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

_forward_context = None


@dataclass(frozen=True)
class BatchDescriptor:
    num_tokens: int
    num_reqs: int | None = None
    uniform: bool = False
    has_lora: bool = False
    num_active_loras: int = 0


def get_forward_context():
    assert _forward_context is not None
    return _forward_context


@contextmanager
def set_forward_context(mode, descriptor):
    global _forward_context
    before = _forward_context
    _forward_context = SimpleNamespace(cudagraph_runtime_mode=mode, batch_descriptor=descriptor)
    try:
        yield
    finally:
        _forward_context = before
