"""Wrappers of another tool, which hide what they wrap."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from profilemate.annotate.hook import Hook

HELD: list[Any] = []
"""What wrappers of `elsewhere` call: they hold nothing themselves."""


def in_closure(function: Any) -> Any:
    """Takes anything; the function is in its closure."""

    def wrapper(*a: Any, **k: Any) -> Any:
        return function(*a, **k)

    return wrapper


def in_instance(function: Any) -> Any:
    """A descriptor that calls what it holds as an attribute."""
    return Holder(function)


class Holder:
    """Binds itself as a function does."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *a: Any, **k: Any) -> Any:
        return self.function(*a, **k)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return lambda *a, **k: self(instance, *a, **k)


def elsewhere(function: Any) -> Any:
    """Takes anything, and what it calls is not to be found from it."""
    HELD.append(function)
    number = len(HELD) - 1

    def wrapper(*a: Any, **k: Any) -> Any:
        return HELD[number](*a, **k)

    return wrapper


def with_self(function: Any) -> Any:
    """Names `self` only."""

    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    return wrapper


WRAPPERS: tuple[Callable[[Any], Any], ...] = (in_closure, in_instance, elsewhere, with_self)


def places(hooks: Sequence[Hook]) -> Iterator[tuple[Any, str]]:
    """Owner and attribute of every target of these hooks whose module is imported or can be."""
    seen = set()
    for target in (target for hook in hooks for target in hook.targets):
        try:
            __import__(target.module)
        except ImportError:
            continue
        module: ModuleType = sys.modules[target.module]
        owner = getattr(module, target.owner, None) if target.owner else module
        if owner is None or not hasattr(owner, target.attribute):
            continue
        if (id(owner), target.attribute) not in seen:
            seen.add((id(owner), target.attribute))
            yield owner, target.attribute


def wrap_all(hooks: Sequence[Hook], wrapper: Callable[[Any], Any]) -> list[str]:
    """Put a foreign wrapper around every place that these hooks know; returns their names."""
    found = []
    for owner, attribute in list(places(hooks)):
        if attribute not in vars(owner):
            continue
        setattr(owner, attribute, wrapper(vars(owner)[attribute]))
        found.append(f"{owner.__name__}.{attribute}")
    return found
