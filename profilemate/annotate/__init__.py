"""What runs inside vLLM: hooks, events, sinks.

`install` is called by the plugin entry point or by our `sitecustomize`; nobody has to call it by
hand. Importing this package loads neither vLLM nor torch nor the hooks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING

from profilemate.annotate import current
from profilemate.annotate.current import status
from profilemate.annotate.faults import say
from profilemate.annotate.settings import Settings

if TYPE_CHECKING:
    from profilemate.annotate.hook import HookStatus

__all__ = ["Settings", "install", "status", "uninstall"]

LOADED = "[sitecustomize] vLLM Comprehensive Instrumentation Loaded"
"""What a user who set `PYTHONPATH` looks for."""


def install(
    settings: Settings | None = None, *, env: Mapping[str, str] | None = None
) -> list[HookStatus]:
    """Annotate the vLLM of this process, now or as soon as it is imported.

    Does nothing when it was done already, and nothing when the settings do not ask for it.

    Args:
        settings: Taken from the environment if not given.
        env: The environment; `os.environ` if not given.

    Returns:
        One row per hook: installed, waiting for its module, or skipped and why. Empty when the
        settings do not ask for annotation.
    """
    env = os.environ if env is None else env
    settings = Settings.from_env(env) if settings is None else settings
    for complaint in settings.complaints:
        say(complaint)
    if not settings.wanted:
        return []
    if current.patcher is None:
        if (settings.live or settings.torch) and not _begin_session(settings, env):
            return []
        _put_in(settings, env)
    return current.status()


def _put_in(settings: Settings, env: Mapping[str, str]) -> None:
    """Make the emitter and the patcher of this process, and put the hooks in."""
    # Imported late: an `import profilemate.annotate` in every vLLM process must cost nothing.
    from profilemate.annotate import extend
    from profilemate.annotate.emit import Emitter
    from profilemate.annotate.hooks import HOOKS
    from profilemate.annotate.hooks.gpu_timing import HOOKS as GPU_TIMING
    from profilemate.annotate.identity import Identity
    from profilemate.annotate.patcher import Patcher
    from profilemate.annotate.sinks import open_sinks

    identity = Identity(graphs=settings.graphs, kv=settings.kv)
    emitter = Emitter(lambda: open_sinks(settings, env), status, identity, settings.steps)
    emitter.step.each_launch = settings.launches
    current.emitter = emitter
    custom = extend.load(env)  # may call `track`, which finds no patcher yet
    current.patcher = patcher = Patcher(emitter)
    off = [g for g, on in (("graphs", settings.graphs), ("kv", settings.kv)) if not on]
    patcher.install((*HOOKS, *(GPU_TIMING if settings.gpu_timing else ()), *custom), off=off)
    if settings.verbose:
        say(f"annotating vLLM in process {os.getpid()}: {settings.reason}")


def _begin_session(settings: Settings, env: Mapping[str, str]) -> bool:
    """Join or begin a session; False if none can be written and nothing else records."""
    from profilemate.annotate import finish, session_dir
    from profilemate.annotate.settings import recorder

    if isinstance(env, MutableMapping):
        first = session_dir.begin(env)
        why = session_dir.usable(settings, env)
        if why:
            if first:
                say(why)
            return settings.torch or recorder(env) is not None
        if first and settings.live:
            say(LOADED, tag="")
    if settings.live:
        finish.at_exit(settings, env)
    return True


def uninstall() -> None:
    """Send what is buffered and put everything back as it was."""
    emitter, patcher = current.emitter, current.patcher
    if patcher is None or emitter is None:
        return
    emitter.finish()
    emitter.on = emitter.active = emitter.watching = emitter.state.armed = False
    patcher.uninstall()
    current.emitter = current.patcher = None
