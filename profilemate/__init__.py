"""profilemate: what vLLM's CUDA graphs and KV cache really did.

Importing this package loads nothing else: not pandas, not torch, not vLLM. The parts are

* `profilemate.schema`, the vocabulary of events, shared by both sides;
* `profilemate.annotate`, what runs inside vLLM;
* `profilemate.parse`, what reads recordings afterwards;
* `profilemate.insight`, what saved sessions mean.

For notebooks there are the names of `profilemate.api`, loaded when they are first asked for.
"""

import importlib

__version__ = "0.1.0"

__all__ = ["Session", "__version__", "compare_sessions", "figures", "open", "parse_recordings"]


def __getattr__(name: str) -> object:
    # A static import would load pandas inside vLLM. Types are in the stub beside this file.
    if name in __all__:
        return getattr(importlib.import_module("profilemate.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
