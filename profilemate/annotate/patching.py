"""Hooks as rows, and the loop that puts them in and takes them out again.

A hook names methods of vLLM's classes that may carry it, newest first, and how to wrap each. The
first that exists is wrapped, on the class object itself, right after its module was imported by
vLLM: importing one of vLLM's modules ourselves could change what vLLM does (some decide at
import time from variables that vLLM sets later). A few are functions, wrapped under their name in
the module that calls them, and a few are torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from profilemate.annotate.guard import shield

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter

Method = Callable[..., Any]
Wrap = Callable[[Method, "Emitter"], Method]
Group = Literal["engine", "kv", "graphs", "custom"]
State = Literal["installed", "waiting", "skipped"]


@dataclass(frozen=True, slots=True)
class Target:
    """A place that may carry a hook, and the wrapper for it.

    `module:Class.method` or `module:function`. The module may have imported the class or function
    from elsewhere: that is how candidates of several versions can wait for one module, and be
    tried in their order when it comes. A method is wrapped wherever it is called, a function only
    in this module.
    """

    path: str
    wrap: Wrap

    @property
    def module(self) -> str:
        """The module to wait for."""
        return self.path.partition(":")[0]

    @property
    def owner(self) -> str:
        """The class, or nothing for a function of the module."""
        return self.path.partition(":")[2].rpartition(".")[0]

    @property
    def attribute(self) -> str:
        """The method or function."""
        return self.path.partition(":")[2].rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Hook:
    """One row of the hook table.

    Attributes:
        name: Unique; usually the method's name.
        group: The switch that it belongs to.
        targets: Candidates, newest vLLM first. The first that exists is wrapped.
        emits: Event kinds it gives, or empty for one that only gives context to others.
        why: What this place knows that no other does.
    """

    name: str
    group: Group
    targets: tuple[Target, ...]
    emits: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class HookStatus:
    """What became of a hook in this process."""

    name: str
    state: State
    target: str = ""
    why: str = ""


@dataclass(slots=True)
class _Patch:
    owner: type | ModuleType
    attribute: str
    wrapper: Method
    original: Method
    own: bool  # the owner had the attribute itself, not by inheritance


class Patcher:
    """Installs hooks, keeps what it replaced, and puts it back."""

    def __init__(self, emitter: Emitter) -> None:
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
        own = attribute in vars(owner)
        setattr(owner, attribute, wrapper)
        self._patches.append(_Patch(owner, attribute, wrapper, original, own))
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
            if patch.own:
                setattr(patch.owner, patch.attribute, patch.original)
            else:
                delattr(patch.owner, patch.attribute)
        self._patches.clear()
        self._failed.clear()
        self._status.clear()
