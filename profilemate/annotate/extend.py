"""Hooks of others: events of their own kinds, from methods that profilemate does not know.

What `profilemate.extend` offers. Such an event is spelled `custom.<kind>`, and each of its values
says its type (`i:35`), so that a parser needs nothing of the code that made it. It is spelled at
once, inside the guard: what comes from foreign code must not fail later, with a whole batch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from threading import Lock
from types import FunctionType
from typing import TYPE_CHECKING, Any

from profilemate.annotate import current
from profilemate.annotate.faults import Faults, shield
from profilemate.annotate.hook import Hook, Method, Original, Target
from profilemate.annotate.signatures import parameters_of
from profilemate.annotate.wrapping import Arguments, observe
from profilemate.schema import custom

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter

GROUP = "profilemate.hooks"
"""Entry-point group: modules that call `track` when imported, or functions that do when called."""

PLUGINS = "PROFILEMATE_PLUGINS"
"""Variable: names of such modules, separated by commas."""

Read = Callable[[Any, Mapping[str, Any], Any], Mapping[str, Any] | None]
"""(self, arguments by name, result) -> the fields of an event, or None for no event."""

FLUSH_EVERY_NS = 1_000_000_000
"""In a process without scheduler or worker nothing else sends what is buffered."""

_PLACE = re.compile(r"[\w.]+:(?:\w+\.)*\w+")

_registered: dict[str, Hook] = {}
_loaded: set[str] = set()
_faults = Faults()


def track(
    target: str | tuple[str, ...],
    *,
    kind: str,
    fields: Read,
    why: str = "",
) -> None:
    """Record an event for every call of a method, with its time and the fields that you read.

    Call it before vLLM is imported or after: the method is wrapped on its class as soon as its
    module is there. Nothing is wrapped unless profilemate annotates this process. Tracking the same
    targets as the same kind again changes nothing.

    Args:
        target: `module:Class.method` or `module:function`; of several candidates, for several
            versions, the first that exists is taken. A module is never imported for it.
        kind: Name of the events and of their table, `custom_<kind>.csv`: a letter, then letters,
            digits and underscores, all in lower case.
        fields: Called as `fields(self, arguments, result)` after each call, `self` None for a
            function, `arguments` by name with defaults filled in. Returns the fields of the event:
            names like those of kinds, values int, float, bool, str, a numpy scalar, or None for
            what is not known; or returns None for no event. Read only what is cheap and on the
            host: a tensor's value would synchronise the device. What it raises never reaches vLLM;
            it is counted and said once.
        why: What this place knows, for whoever reads the list of hooks.

    Raises:
        ValueError: The kind or the target is not spelled as above.
    """
    if not custom.is_name(kind):
        raise ValueError(f"no name for a kind: {kind!r} ({custom.RULE})")
    targets = (target,) if isinstance(target, str) else tuple(target)
    for place in targets:
        if not _PLACE.fullmatch(place):
            raise ValueError(f"no target: {place!r} (module:Class.method or module:function)")
    name = f"{custom.PREFIX}{kind} {targets[0].partition(':')[2]}"
    if name in _registered:
        return
    hook = Hook(
        name,
        "custom",
        tuple(Target(place, _wrap(place, kind, fields)) for place in targets),
        (f"{custom.PREFIX}{kind}",),
        why or "a hook of another package",
    )
    _registered[name] = hook
    current.add_hook(hook)


def load(env: Mapping[str, str]) -> tuple[Hook, ...]:
    """Import whatever asks for hooks, once in a process; every hook that was asked for so far.

    A plugin that fails is reported and left out.
    """
    for name, found in _plugins(env):
        if name not in _loaded:
            _loaded.add(name)
            shield(f"the plugin {name}", _faults, found)()
    return tuple(_registered.values())


def _plugins(env: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], None]]]:
    for entry in importlib.metadata.entry_points(group=GROUP):
        yield f"{entry.name} ({entry.value})", partial(_enter, entry.load)
    for module in filter(None, map(str.strip, env.get(PLUGINS, "").split(","))):
        yield module, partial(_enter, partial(importlib.import_module, module))


def _enter(find: Callable[[], object]) -> None:
    found = find()
    if callable(found):
        found()


def _wrap(place: str, kind: str, fields: Read) -> Callable[[Original, Emitter], Method]:
    """The wrapper of a target: reads the fields after each call and emits them, spelled."""
    is_method = "." in place.partition(":")[2]

    def wrap(original: Original, emitter: Emitter) -> Method:
        """Observe the method; raises TypeError for one that cannot be wrapped."""
        _refuse(place, original.method)
        names = list(parameters_of(original)[0].parameters)
        read = shield(original.hook, emitter.faults, _reader(kind, fields))
        sender = _Sender(emitter)

        def after(
            first: Any, start: int, end: int, result: Any, arguments: Arguments, _: Any
        ) -> None:
            by_name = dict(zip(names[1:], arguments, strict=False))
            owner = first if is_method else None
            text = read(owner, by_name if is_method else {names[0]: first, **by_name}, result)
            if text is not None:
                sender.add(kind, start, end, text)

        return observe(original, emitter, after)

    return wrap


def _reader(kind: str, fields: Read) -> Callable[[Any, Mapping[str, Any], Any], str | None]:
    def read(owner: Any, arguments: Mapping[str, Any], result: Any) -> str | None:
        values = fields(owner, arguments, result)
        return None if values is None else custom.encode_fields(kind, values)

    return read


def _refuse(place: str, original: Method) -> None:
    """Raise for what a wrapper with the method's own signature cannot stand for."""
    module, _, path = place.partition(":")
    owner: Any = sys.modules[module]
    *outer, attribute = path.split(".")
    for name in outer:
        owner = getattr(owner, name)
    found = inspect.getattr_static(owner, attribute)
    if isinstance(found, staticmethod | classmethod) or inspect.isclass(original):
        raise TypeError(f"{place} is no plain method or function")
    if not isinstance(original, FunctionType):
        raise TypeError(f"{place} is no function written in Python")
    if inspect.iscoroutinefunction(original) or inspect.isasyncgenfunction(original):
        raise TypeError(f"{place} is a coroutine: its call returns before its work begins")
    if inspect.isgeneratorfunction(original):
        raise TypeError(f"{place} is a generator: its call returns before its work begins")
    if not inspect.signature(original).parameters:
        raise TypeError(f"{place} takes no arguments")


class _Sender:
    """Gives events to the emitter, and sends them where no step ever ends."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._lock = Lock()
        self._due = 0  # ns, monotonic

    def add(self, kind: str, start: int, end: int, text: str) -> None:
        """Emit one event: its kind, begin and end (ns, monotonic), its fields as spelled."""
        emitter = self._emitter
        emitter.add(custom.encode, start, end, (kind, text))
        if emitter.identity.has_role or end < self._due or not self._lock.acquire(blocking=False):
            return
        try:
            self._due = end + FLUSH_EVERY_NS
            emitter.flush()
        finally:
            self._lock.release()
