"""The loop that puts hooks in and takes them out again.

A hook names methods of vLLM's classes that may carry it, newest first, and how to wrap each. The
first that exists is wrapped, on the class object itself, right after its module was imported by
vLLM: importing one of vLLM's modules ourselves could change what vLLM does (some decide at
import time from variables that vLLM sets later). A few are functions, wrapped under their name in
the module that calls them, and a few are torch's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

from profilemate.annotate.faults import shield
from profilemate.annotate.hook import Hook, HookStatus, Method, Target

if TYPE_CHECKING:
    from profilemate.annotate.outlet import Outlet


@dataclass(slots=True)
class _Patch:
    owner: type | ModuleType
    attribute: str
    wrapper: Method
    original: Method
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
        """One row per hook, in the order of the hook table."""
        return list(self._status.values())

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
                status = HookStatus(hook.name, "skipped", why=f"{hook.group} hooks are off")
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

        The hook's status tells what came of it; it is skipped once every module has failed.
        """
        # wrapt cannot forget a hook, so one of an earlier round finds out here.
        if round_ != self._round or self._status[hook.name].state == "installed":
            return
        reasons = []
        for target in hook.targets:
            if target.module != module.__name__:
                continue
            why = self._wrap(target, module)
            if why is None:
                self._status[hook.name] = HookStatus(hook.name, "installed", target.path)
                return
            reasons.append(why)
        failed = self._failed[hook.name]
        failed[module.__name__] = "; ".join(reasons)
        if set(failed) == {target.module for target in hook.targets}:
            why = "; ".join(failed.values())
            self._status[hook.name] = HookStatus(hook.name, "skipped", why=why)

    def _wrap(self, target: Target, module: ModuleType) -> str | None:
        """Wrap one target; return why that is not possible, or None."""
        attribute = target.attribute
        owner = getattr(module, target.owner, None) if target.owner else module
        if not isinstance(owner, type | ModuleType):
            return f"{module.__name__} has no class {target.owner}"
        original = getattr(owner, attribute, None)
        if not callable(original):
            return f"{target.owner or module.__name__} has no {attribute}"
        # We are inside an import statement of vLLM's: a fault of ours must not leave here.
        faults = self._emitter.faults
        wrapper = shield(target.path, faults, target.wrap)(original, self._emitter)
        if wrapper is None:
            return f"{attribute} could not be wrapped: {faults.first[target.path]}"
        is_own = attribute in vars(owner)
        setattr(owner, attribute, wrapper)
        self._patches.append(_Patch(owner, attribute, wrapper, original, is_own))
        return None

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
