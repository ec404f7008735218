"""The two doors into vLLM.

* `register` is the `vllm.general_plugins` entry point: vLLM calls it in every process it starts,
  before any work. An exception in it would kill vLLM, so none leaves it.
* `watch` is called by `door/sitecustomize.py` at the start of every Python process whose
  PYTHONPATH has that folder. It waits until `vllm` is imported and does nothing before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from profilemate.annotate import Settings, configured, install
from profilemate.annotate.faults import Faults, shield
from profilemate.annotate.settings import DOOR, SITECUSTOMIZE

_faults = Faults()


def register() -> None:
    """Annotate this vLLM process if the environment asks for it. Never raises."""
    shield("the vLLM plugin", _faults, _register)()


def _register() -> None:
    if not install() and Settings.from_env(os.environ).mode == "auto":
        # Nobody records, unless vLLM's own configuration says so.
        configured.wait(install)


class _Watcher:
    """A finder that finds nothing: it only notices that vLLM is about to be imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "vllm":
            sys.meta_path.remove(self)
            shield("sitecustomize", _faults, install)()
        return None


def watch() -> None:
    """Wait for vLLM. Child processes learn from `PROFILEMATE_DOOR` that this door was taken."""
    os.environ.setdefault(DOOR, SITECUSTOMIZE)
    if "vllm" in sys.modules:
        shield("sitecustomize", _faults, install)()
    elif not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())


def door() -> Path:
    """The folder to put on PYTHONPATH, for an environment that profilemate is not installed in."""
    return Path(__file__).parent / "door"
