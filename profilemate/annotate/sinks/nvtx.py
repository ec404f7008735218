"""The NVTX sink: ranges and marks that Nsight Systems (or any NVTX tool) records.

Three ways lead there, tried in this order:

1. the `nvtx` package, in a domain of our own, through its C functions. Its public calls keep every
   message for ever (they are made for few, repeated names; ours are all different), so we make the
   message objects ourselves. 0.2.8 to 0.2.15 have the same three classes and functions for it.
2. its public calls, where those are missing: everything works, memory grows with the recording.
3. torch's NVTX binding, in the default domain. nvtx 0.2.12 and later ask the tool whether a domain
   is enabled and hand out a dummy when it does not answer, which Nsight Systems 2022.4 and 2023.4
   do not; torch does not ask.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping
from typing import Any

from profilemate import schema
from profilemate.annotate.settings import Settings, recorder
from profilemate.annotate.sink import Scope, Sink

# Colours apart from each other for the colour-blind too (Okabe and Ito's palette), ARGB.
COLOURS: Mapping[str, int] = {
    "session": 0xFF999999,
    "batch": 0xFF0072B2,
    "step": 0xFFE69F00,
    "graph.capture": 0xFFCC79A7,
    "graph.replay": 0xFF009E73,
    "kv.reset": 0xFFD55E00,
}
_OTHER = 0xFF56B4E9

_PREFIX = len(schema.PREFIX)


def kind_of(text: str) -> str:
    """The kind that a message begins with: its category in the timeline."""
    end = text.find(" ")
    return text[_PREFIX : end if end >= 0 else len(text)]


class DomainSink:
    """Way 1: our own domain, no message kept."""

    name = "nvtx"
    scope: Scope = "always"

    def __init__(self, domain: Any) -> None:
        from nvtx import _lib
        from nvtx._lib import lib

        self._lib = lib
        self._mark, self._push, self._pop = _lib.mark, _lib.push_range, _lib.pop_range
        self._domain = domain
        self._handle = domain.handle
        self._attributes: dict[str, Any] = {}
        self._attributes_of("batch").message = self._string("")  # fails here if it ever will

    def _string(self, text: str) -> Any:
        # type.__call__ goes past the metaclass of 0.2.8, which keeps every instance.
        return type.__call__(self._lib.RegisteredString, self._handle, text)

    def _attributes_of(self, kind: str) -> Any:
        attributes = self._attributes.get(kind)
        if attributes is None:
            colour = COLOURS.get(kind, _OTHER)
            if hasattr(self._domain, "get_event_attributes"):
                attributes = self._domain.get_event_attributes("", colour, kind)
            else:  # before 0.2.9
                category = self._domain.get_category_id(kind)
                attributes = self._lib.EventAttributes(self._string(""), colour, category)
            self._attributes[kind] = attributes
        return attributes

    def mark(self, text: str) -> None:
        """Record an instant."""
        attributes = self._attributes_of(kind_of(text))
        attributes.message = self._string(text)
        self._mark(attributes, self._handle)

    def push(self, text: str) -> None:
        """Open a range on this thread."""
        attributes = self._attributes_of(kind_of(text))
        attributes.message = self._string(text)
        self._push(attributes, self._handle)

    def pop(self) -> None:
        """Close the last range of this thread."""
        self._pop(self._handle)

    def flush(self) -> None:
        """Nothing to do: the tool has it."""


class PublicSink:
    """Way 2: the documented calls of the nvtx package."""

    name = "nvtx (public calls)"
    scope: Scope = "always"

    def __init__(self, nvtx: Any) -> None:
        self._nvtx = nvtx

    def mark(self, text: str) -> None:
        """Record an instant."""
        kind = kind_of(text)
        self._nvtx.mark(text, COLOURS.get(kind, _OTHER), schema.DOMAIN, kind)

    def push(self, text: str) -> None:
        """Open a range on this thread."""
        kind = kind_of(text)
        self._nvtx.push_range(text, COLOURS.get(kind, _OTHER), schema.DOMAIN, kind)

    def pop(self) -> None:
        """Close the last range of this thread."""
        self._nvtx.pop_range(schema.DOMAIN)

    def flush(self) -> None:
        """Nothing to do: the tool has it."""


class TorchSink:
    """Way 3: torch's binding, which knows neither domains nor colours."""

    name = "nvtx (torch)"
    scope: Scope = "always"

    def __init__(self, binding: Any) -> None:
        self.mark = binding.markA
        self.push = binding.rangePushA
        self.pop = binding.rangePop

    def flush(self) -> None:
        """Nothing to do: the tool has it."""


def open_sink(settings: Settings, env: Mapping[str, str]) -> tuple[Sink | None, str]:
    """Find a way that records. Without a tool in the environment nothing is imported."""
    if recorder(env) is None:
        return None, "Nsight Systems does not follow this process"
    why: list[str] = []
    sink = _nvtx_package(why)
    if sink is None:
        sink = _torch(why)
    if sink is None:
        why.append("install nvtx==0.2.11, or use a current Nsight Systems with a current nvtx")
    return sink, "Nsight Systems is attached, but " + "; ".join(why)


def _nvtx_package(why: list[str]) -> Sink | None:
    """Way 1, else way 2; None, with the reason appended to `why`, where neither records."""
    try:
        import nvtx
    except ImportError as e:
        why.append(f"the nvtx package cannot be imported ({e})")
        return None
    if not nvtx.enabled():
        why.append("NVTX_DISABLE is set")
        return None
    get_domain = getattr(nvtx, "get_domain", None) or nvtx._lib.Domain  # 0.2.8 has the class only
    domain = get_domain(schema.DOMAIN)
    if not hasattr(domain, "handle"):
        version = importlib.metadata.version("nvtx")
        why.append(f"nvtx {version} hands out a dummy domain, because this tool does not answer it")
        return None
    try:
        return DomainSink(domain)
    except (ImportError, AttributeError, TypeError):
        return PublicSink(nvtx)


def _torch(why: list[str]) -> Sink | None:
    """Way 3; None, with the reason appended to `why`, where torch has no binding."""
    # Never import torch for it; in an engine or a worker it is there.
    binding = getattr(getattr(sys.modules.get("torch"), "_C", None), "_nvtx", None)
    if not hasattr(binding, "markA"):
        why.append("torch is not loaded or has no NVTX binding (CPU builds have none)")
        return None
    return TorchSink(binding)
