"""The loop that puts hooks in and takes them out again.

A hook names methods of vLLM's classes that may carry it, newest first, and how to wrap each. The
first that exists is wrapped, on the class object itself, right after its module was imported by
vLLM: importing one of vLLM's modules ourselves could change what vLLM does (some decide at
import time from variables that vLLM sets later). A few are functions, wrapped under their name in
the module that calls them, and a few are torch's.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from profilemate.annotate.faults import shield
from profilemate.annotate.hook import Hook, HookStatus, Method, Target

if TYPE_CHECKING:
    from profilemate.annotate.outlet import Outlet


@dataclass(slots=True)
class _Patch:
    owner: type | ModuleType
    attribute: str
    wrapper: Method
    original: Any  # as it lies in the owner: perhaps a descriptor that is not the method itself
    is_own: bool  # the owner had the attribute itself, not by inheritance


class Patcher:
    """Installs hooks, keeps what it replaced, and puts it back."""

    def __init__(self, emitter: Outlet) -> None:
        self._emitter = emitter
        self._status: dict[str, HookStatus] = {}
        self._patches: list[_Patch] = []
        self._failed: dict[str, dict[str, str]] = {}  # hook -> module -> reason
        self._round = 0

    @property
    def status(self) -> list[HookStatus]:
        """One row per hook, in the order of the hook table, with its faults so far."""
        faults = self._emitter.faults
        if not faults.count:
            return list(self._status.values())
        return [
            replace(s, faults=faults.counts[s.name], why=s.why or faults.first[s.name])
            if s.name in faults.counts
            else s
            for s in self._status.values()
        ]

    @property
    def installed(self) -> bool:
        """Whether `install` ran and `uninstall` did not."""
        return bool(self._status)

    def install(self, hooks: Sequence[Hook], *, off: Iterable[str] = ()) -> None:
        """Wrap what is imported already, and the rest as vLLM imports it.

        A second call without an `uninstall` between changes nothing. `off` names the groups that
        are switched off.
        """
        if self.installed:
            return
        self._round += 1
        off = set(off)
        for hook in hooks:
            if hook.group in off:
                status = HookStatus(hook.name, "off", why=f"{hook.group} hooks are off")
                self._status[hook.name] = status
                continue
            self.add(hook)

    def add(self, hook: Hook) -> None:
        """Put one hook in, now or when vLLM imports its place."""
        # Imported here because it takes 60 ms, which a process that records nothing must not pay.
        from wrapt import register_post_import_hook

        modules = dict.fromkeys(target.module for target in hook.targets)
        why = f"{', '.join(modules)} not imported here"
        self._status[hook.name] = HookStatus(hook.name, "waiting", why=why)
        self._failed[hook.name] = {}
        for module in modules:
            register_post_import_hook(partial(self._imported, self._round, hook), module)

    def _imported(self, round_: int, hook: Hook, module: ModuleType) -> None:
        """A module of a hook's targets is there: wrap the first target it has.

        The hook's status tells what came of it: once every module is there, it has failed if a
        target was there and could not be wrapped, and is skipped if there was none.
        """
        # wrapt cannot forget a hook, so one of an earlier round finds out here.
        if round_ != self._round or self._status[hook.name].state in ("installed", "failed"):
            return
        reasons: list[str] = []
        for target in hook.targets:
            if target.module != module.__name__:
                continue
            owner: Any = getattr(module, target.owner, None) if target.owner else module
            why = _missing(target, owner, module)
            if why is None:
                self._wrap(hook, target, owner)
                return
            reasons.append(why)
        failed = self._failed[hook.name]
        failed[module.__name__] = "; ".join(reasons)
        if set(failed) == {target.module for target in hook.targets}:
            why = "; ".join(failed.values())
            self._status[hook.name] = HookStatus(hook.name, "skipped", why=why)

    def _wrap(self, hook: Hook, target: Target, owner: type | ModuleType) -> None:
        """Wrap a target that is there; the hook's status tells whether that was possible."""
        attribute, faults = target.attribute, self._emitter.faults
        found = inspect.getattr_static(owner, attribute)
        why = _unwrappable(owner, found)
        # We are inside an import statement of vLLM's: a fault of ours must not leave here.
        make = shield(hook.name, faults, target.wrap)
        wrapper = None
        if why is None:
            wrapper = make(target.original(getattr(owner, attribute), hook.name), self._emitter)
            why = faults.first.get(hook.name, "")
        if wrapper is None:
            text = f"{attribute} could not be wrapped: {why}"
            self._status[hook.name] = HookStatus(hook.name, "failed", target.path, text)
            return
        is_own = attribute in vars(owner)
        setattr(owner, attribute, wrapper)
        self._patches.append(_Patch(owner, attribute, wrapper, found, is_own))
        self._status[hook.name] = HookStatus(hook.name, "installed", target.path)

    def uninstall(self) -> None:
        """Put everything back, last patch first.

        A method that somebody else wrapped after us keeps our wrapper inside theirs; it then only
        hands on, because the emitter is off.
        """
        self._round += 1
        for patch in reversed(self._patches):
            if vars(patch.owner).get(patch.attribute) is not patch.wrapper:
                continue
            if patch.is_own:
                setattr(patch.owner, patch.attribute, patch.original)
            else:
                delattr(patch.owner, patch.attribute)
        self._patches.clear()
        self._failed.clear()
        self._status.clear()


def _missing(target: Target, owner: Any, module: ModuleType) -> str | None:
    """Why a target is not in this vLLM, or None."""
    if not isinstance(owner, type | ModuleType):
        return f"{module.__name__} has no class {target.owner}"
    if not callable(getattr(owner, target.attribute, None)):
        return f"{target.owner or module.__name__} has no {target.attribute}"
    return None


def _unwrappable(owner: type | ModuleType, found: Any) -> str | None:
    """Why what lies in the owner cannot be wrapped, or None.

    A class gives `self` to what binds itself, as functions do.
    """
    if isinstance(owner, type) and not hasattr(type(found), "__get__"):
        return f"a {type(found).__qualname__} is no method, it does not learn whose it is"
    return None
