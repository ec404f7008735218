"""Facts for `profilemate annotate status`."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from profilemate.annotate import Settings, extend, plugin, probe, session_dir
from profilemate.annotate.hook import HookStatus
from profilemate.annotate.hooks import HOOKS
from profilemate.annotate.settings import recorder
from profilemate.annotate.sinks import open_sinks


@dataclass(frozen=True, slots=True)
class Status:
    """What annotation would do in this environment.

    Attributes:
        settings: What the environment asks for.
        doors: Each way in, and whether it is open.
        versions: Of what matters; None for what is not installed here.
        vllm: Folder of the vLLM that Python would import, None if there is none.
        hooks: What each hook would find there; empty without a vLLM.
        sink: What would record, or why nothing would. Empty where nothing is asked for.
        session: Where live sessions go, or why they cannot. Empty where none is asked for.
    """

    settings: Settings
    doors: list[tuple[str, bool, str]]
    versions: dict[str, str | None]
    vllm: Path | None
    hooks: list[HookStatus]
    sink: str
    session: str


def collect(env: Mapping[str, str]) -> Status:
    """Look around without importing vLLM or touching the recorder."""
    vllm = probe.find_vllm()
    settings = Settings.from_env(env)
    off = {g for g, on in (("graphs", settings.graphs), ("kv", settings.kv)) if not on}
    every = (*HOOKS, *extend.load(env))
    found = [] if vllm is None else probe.probe(every, vllm)
    hooks = [
        HookStatus(s.name, "off", why=f"{hook.group} hooks are off") if hook.group in off else s
        for hook, s in zip(every, found, strict=False)
    ]
    versions = {
        "vllm": None if vllm is None else probe.version_of(vllm),
        "nvtx": _version("nvtx"),
        "wrapt": _version("wrapt"),
        "torch": _version("torch"),
    }
    return Status(
        settings, _doors(env), versions, vllm, hooks, _sink(settings, env), _session(settings, env)
    )


def _doors(env: Mapping[str, str]) -> list[tuple[str, bool, str]]:
    group = importlib.metadata.entry_points(group="vllm.general_plugins")
    announced = any(e.value.startswith("profilemate.") for e in group)
    allowed = env.get("VLLM_PLUGINS")
    listed = allowed is None or "profilemate" in allowed.split(",")
    why = "vLLM finds it in this environment" if announced else "profilemate is not installed here"
    if announced and not listed:
        why = f"VLLM_PLUGINS={allowed} leaves profilemate out"
    door = str(plugin.door())
    root = plugin.door().parents[2]  # of a clone, which is a door too
    named = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
    on_path = any(Path(p).resolve() == Path(door).resolve() for p in sys.path if p)
    on_path |= (root / "sitecustomize.py").exists() and str(root) in map(os.path.abspath, named)
    loaded, where = on_path, "on PYTHONPATH" if on_path else f"{door} is not on PYTHONPATH"
    taken = _loaded_instead({door, str(root)}) if on_path else None
    if taken is not None:
        loaded, where = False, f"on PYTHONPATH, but Python loads {taken} in its place"
    return [
        ("plugin entry point", announced and listed, why),
        ("sitecustomize", loaded, where),
    ]


def _loaded_instead(doors: set[str]) -> str | None:
    """Which `sitecustomize` this interpreter has loaded and not one of these doors; None if one.

    Some launchers (`opentelemetry-instrument`) put their own folder in front of the path.
    """
    if doors & set(getattr(sys, "_profilemate_doors", ())):
        return None
    other = getattr(sys.modules.get("sitecustomize"), "__file__", None)
    return None if other is None else str(other)


def _sink(settings: Settings, env: Mapping[str, str]) -> str:
    if not settings.wanted:
        return ""
    found: list[str] = []
    if recorder(env) is not None or settings.live:
        sinks, why = open_sinks(settings, env)
        found += [sink.name for sink in sinks] or [f"none: {why}"]
    if settings.torch or settings.mode == "on":
        # torch is not loaded here; where vLLM runs it is.
        found.append("torch profiler, while one runs")
    if settings.steps is not None:
        first, number = settings.steps
        found.append(f"steps {first} to {first + number - 1} only")
    return "; ".join(found)


def _session(settings: Settings, env: Mapping[str, str]) -> str:
    if not settings.live:
        return ""
    return session_dir.usable(settings, dict(env)) or f"{settings.directory}/session_*"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
