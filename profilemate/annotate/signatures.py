"""Which arguments a method takes, also where another tool's wrapper hides it.

Tracers put wrappers around vLLM's methods that take `*args, **kwargs`, and not all of them say what
they wrap. What such a wrapper is given is given to vLLM's method in the end, so it is read by that
one's parameters: those of the function that the wrapper holds, or else those that the target's row
states.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

from profilemate.annotate.hook import Method, Original

MAX_HELD = 64
"""Objects that are looked at in search of the function that a wrapper holds."""

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def parameters_of(original: Original) -> tuple[inspect.Signature, bool]:
    """The parameters by which the arguments of a call are read.

    Returns:
        The signature, and whether it is the callable's own: then a wrapper may have the same.
    """
    stated = _stated(original)
    shown, own = _signature(original.method), _signature(original.method, follow_wrapped=False)
    if shown is not None and not _hides(shown, stated):
        return shown, shown == own
    held = _held(original, stated)
    return stated if held is None else held, False


def _stated(original: Original) -> inspect.Signature:
    """What the row states; an argument that is not given is None, further ones are allowed."""
    spelled = f"self, {original.parameters}" if original.is_method else original.parameters
    # A row of ours is text of ours: no foreign code is evaluated here.
    function: Callable[..., Any] = eval(f"lambda {spelled}: None")
    parameters = [
        p.replace(default=None) if p.default is p.empty and p.name != "self" else p
        for p in inspect.signature(function).parameters.values()
    ]
    further = [
        inspect.Parameter("pm_more", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("pm_named", inspect.Parameter.VAR_KEYWORD),
    ]
    return inspect.Signature([*parameters, *further])


def _signature(method: Method, *, follow_wrapped: bool = True) -> inspect.Signature | None:
    try:
        return inspect.signature(method, follow_wrapped=follow_wrapped)
    except (TypeError, ValueError):  # not written in Python
        return None


def _hides(shown: inspect.Signature, stated: inspect.Signature) -> bool:
    """Whether a signature takes anything, and does not name what the row states.

    One that takes nothing in particular and lacks a name is vLLM's of another version.
    """
    parameters = list(shown.parameters.values())
    if not any(p.kind in _VARIADIC for p in parameters):
        return False
    if parameters[0].kind in _VARIADIC:
        return True
    names = _names(stated)
    return bool(names) and names[0] not in shown.parameters


def _names(stated: inspect.Signature) -> list[str]:
    """What a row states, without `self`."""
    parameters = stated.parameters.values()
    return [p.name for p in parameters if p.kind not in _VARIADIC and p.name != "self"]


def _held(original: Original, stated: inspect.Signature) -> inspect.Signature | None:
    """The signature of the method of that name which a wrapper holds, None if none is found."""
    name, wanted = original.name, _names(stated)
    for function in _functions_in(original.method):
        shown = _signature(function)
        if function.__name__ != name or shown is None or _hides(shown, stated):
            continue
        if not wanted or wanted[0] in shown.parameters:
            return shown
    return None


def _functions_in(method: Method) -> Iterator[FunctionType]:
    """The functions that a wrapper holds in any of the usual ways, nearest first."""
    queue, seen = [method], {id(method)}
    for held in queue:
        if isinstance(held, FunctionType):
            yield held
        for further in _held_by(held):
            if callable(further) and id(further) not in seen and len(queue) < MAX_HELD:
                seen.add(id(further))
                queue.append(further)


def _held_by(held: Any) -> Iterator[Any]:
    if isinstance(held, partial):
        yield held.func
    elif isinstance(held, MethodType):
        yield held.__func__
    elif isinstance(held, type):
        return
    elif isinstance(held, FunctionType):
        for cell in held.__closure__ or ():
            if cell != _EMPTY:
                yield cell.cell_contents
        yield from (*(held.__defaults__ or ()), *(held.__kwdefaults__ or {}).values())
    attributes = getattr(held, "__dict__", None)
    if isinstance(attributes, dict):
        yield from attributes.values()
    yield getattr(held, "__wrapped__", None)


_EMPTY = CellType()
