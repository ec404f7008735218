"""What is installed in this process: `install` puts it here, sinks and `extend` ask for it.

It stands below them so that none of them has to know `install`, which knows all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter
    from profilemate.annotate.hook import Hook, HookStatus
    from profilemate.annotate.patcher import Patcher

emitter: Emitter | None = None
patcher: Patcher | None = None
"""Both None as long as nothing is installed in this process, and after `uninstall`."""


def status() -> list[HookStatus]:
    """One row per hook; empty when nothing is installed in this process."""
    return [] if patcher is None else patcher.status


def add_hook(hook: Hook) -> None:
    """Put one more hook in, if hooks are in at all; `install` finds it otherwise."""
    if patcher is not None:
        patcher.add(hook)


def touch_session() -> None:
    """Have this process say again who it is, with its next message."""
    if emitter is not None:
        emitter.touch_session()
