"""Whether vLLM's configuration has a torch profiler (`--profiler-config`), said as early as it is.

`PROFILEMATE=auto` puts hooks in only where somebody records. vLLM calls our plugin before it has a
configuration, and in its child processes before our plugin could see it. So the first process looks
at the configuration when it is complete (`VllmConfig.__post_init__`), installs, and leaves word in
its environment, which processes that are started later inherit.

Ray's workers inherit no environment: name the variable in VLLM_RAY_EXTRA_ENV_VARS_TO_COPY.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from profilemate.annotate.faults import Faults, say, shield
from profilemate.annotate.hook import Original
from profilemate.annotate.settings import TORCH
from profilemate.annotate.wrapping import compile_wrapper

PROTON = "proton"

PROTON_SAID = "PROFILEMATE_PROTON_SAID"
"""Set by ourselves, for this process and those that it starts: it was said."""

NO_PROTON = (
    "--profiler-config asks for Triton's Proton, whose files profilemate does not read. For GPU "
    'work beside its tables use "profiler": "torch", or "cuda" under Nsight Systems; for CUDA '
    "graphs and the KV cache alone a live session (PROFILEMATE_DIR) is enough"
)

_faults = Faults()


def note(config: Any) -> bool:
    """Leave word if this VllmConfig has a torch profiler; whether it has."""
    profiler = getattr(getattr(config, "profiler_config", None), "profiler", None)
    if profiler == "torch":
        os.environ[TORCH] = "1"
    elif profiler == PROTON and not os.environ.get(PROTON_SAID):
        os.environ[PROTON_SAID] = "1"
        say(NO_PROTON)
    return profiler == "torch"


_NOTICE = """
pm_result = CALL
pm_notice(SELF)
return pm_result
"""


def wait(then: Callable[[], object]) -> bool:
    """Call `then` when a configuration with a torch profiler is made; whether one can be.

    vLLM imports its configuration before it loads plugins, so nothing is imported for it. A
    process that never sees such a configuration pays for one call more, when one is made.
    """
    owner = getattr(sys.modules.get("vllm.config"), "VllmConfig", None)
    original = getattr(owner, "__post_init__", None)
    if owner is None or original is None:
        return False

    def notice(config: Any) -> None:
        if note(config) and owner.__post_init__ is wrapper:
            owner.__post_init__ = original
            then()

    hook = "VllmConfig.__post_init__"
    shielded = shield(hook, _faults, notice)
    named = Original(original, hook, "__post_init__")
    wrapper = compile_wrapper(named, _NOTICE, pm_notice=shielded)
    owner.__post_init__ = wrapper
    return True
