"""From vLLM's descriptors to the graph key.

A descriptor says for which batches a graph may run: `BatchDescriptor` in the first model runner
(a NamedTuple up to vLLM 0.16, then a frozen dataclass; its fields grew from two to five),
`BatchExecutionDescriptor` in the second, a bare number of tokens there up to vLLM 0.16 and in a few
other places.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

from profilemate.annotate.graphs import Key
from profilemate.schema.modes import EAGER, FULL, PIECEWISE

_KNOWN = {"cg_mode", "num_tokens", "num_reqs", "uniform", "uniform_decode", "has_lora"}
_KNOWN |= {"num_active_loras"}


@lru_cache(maxsize=4096)
def key_of(mode: str, descriptor: Any, with_lora: bool | None = None) -> Key:
    """The values of `schema.GRAPH_KEY` for a graph of this mode and descriptor.

    Zero adapters are the same as a number that is not known. The second model runner's descriptor
    has no `has_lora`; what its piecewise graphs are captured with is whether the engine serves
    adapters at all: `with_lora`.
    """
    if isinstance(descriptor, int):
        return (mode, descriptor, None, None, None, None, None)
    defaults = _defaults(descriptor)
    values = {name: getattr(descriptor, name) for name in defaults}
    loras = values.get("num_active_loras") or None
    has_lora = values.get("has_lora")
    uniform = values.get("uniform", values.get("uniform_decode"))
    tokens_each = values.get("uniform_token_count")
    if "uniform_token_count" in values:
        uniform = tokens_each is not None
        reqs = values["num_reqs"]
        if tokens_each and reqs and tokens_each * reqs == values["num_tokens"]:
            del values["uniform_token_count"]  # says nothing new
        by_engine = mode == PIECEWISE and with_lora is not None
        has_lora = with_lora if by_engine else loras is not None
    further = ",".join(
        f"{name}:{getattr(value, 'name', value)}"
        for name, value in values.items()
        if name not in _KNOWN and value is not None and value != defaults[name]
    )
    return (
        mode,
        values.get("num_tokens"),
        values.get("num_reqs"),
        uniform,
        has_lora,
        loras,
        further or None,
    )


def _defaults(descriptor: Any) -> dict[str, Any]:
    """The descriptor's fields and their defaults."""
    if dataclasses.is_dataclass(descriptor):
        return {f.name: f.default for f in dataclasses.fields(descriptor)}
    defaults = getattr(descriptor, "_field_defaults", {})
    return {name: defaults.get(name) for name in getattr(descriptor, "_fields", ())}


def mode_name(mode: Any) -> str:
    """The name of a CUDAGraphMode, or of what stands for one: vLLM 0.16 says True for FULL."""
    if isinstance(mode, bool):
        return FULL if mode else EAGER
    return str(getattr(mode, "name", mode))
