"""A hook as a row: the methods of vLLM's classes that may carry it, and how to wrap each.

Rows are data: `hooks/` has ours, `extend.track` makes those of others, `patcher.py` puts them in,
`probe.py` looks whether they would find their place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from profilemate.schema.hooks import HookGroup

Method = Callable[..., Any]
"""A method or function, as its class or module has it: not bound."""


@dataclass(frozen=True, slots=True)
class Original:
    """What is wrapped, and what is known of it.

    Attributes:
        method: The method or function as it was found, perhaps another tool's wrapper of it.
        hook: Name of the hook, by which its faults are counted.
        name: The method's own.
        parameters: See `Target`.
        is_method: Whether its first argument is `self`.
    """

    method: Method
    hook: str
    name: str
    parameters: str = ""
    is_method: bool = True


Wrap = Callable[[Original, Any], Method]
"""(original, emitter) -> what takes its place. A row does not ask what an emitter is."""

Group = HookGroup
"""The switch that a hook belongs to; `engine` and `custom` hooks have none of their own."""

State = Literal["installed", "waiting", "skipped", "off", "failed"]
"""`waiting`: vLLM has not imported the module of any target yet; `skipped`: this vLLM has no such
place; `off`: its group is switched off; `failed`: the place is there and could not be wrapped."""


@dataclass(frozen=True, slots=True)
class Target:
    """A place that may carry a hook, and the wrapper for it.

    `module:Class.method` or `module:function`. The module may have imported the class or function
    from elsewhere: that is how candidates of several versions can wait for one module, and be
    tried in their order when it comes. A method is wrapped wherever it is called, a function only
    in this module.

    Attributes:
        path: As above.
        wrap: Makes the wrapper.
        parameters: vLLM's parameters up to the last one that the wrapper reads, as they are spelled
            in Python and without `self`. Only asked where the method does not say: another tool's
            wrapper around it hides its signature.
    """

    path: str
    wrap: Wrap
    parameters: str = ""

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

    def original(self, method: Method, hook: str) -> Original:
        """The method that this target was found to have, for the hook of that name."""
        return Original(method, hook, self.attribute, self.parameters, bool(self.owner))


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
    """What became of a hook in this process.

    Attributes:
        name: The hook's.
        state: Whether it is in.
        target: Path of the target that was wrapped, or nothing.
        why: Why it is not in, or the first of its faults, or nothing.
        faults: How often it failed since it is in.
    """

    name: str
    state: State
    target: str = ""
    why: str = ""
    faults: int = 0
