"""Which hooks would find their place in a vLLM, told from its source and without importing it.

Importing vLLM takes seconds and needs its dependencies; the class statements of a dozen files say
the same. A class that inherits a method from a base in another file is taken to lack it, which is
how the hook table is written: it names the class that has the method.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from profilemate.annotate.patching import Hook, HookStatus


def find_vllm(path: Sequence[str] | None = None) -> Path | None:
    """The folder of the vLLM that `path` (by default, sys.path) leads to, or None."""
    spec = PathFinder.find_spec("vllm", path)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def version_of(vllm: Path) -> str | None:
    """The version that a vLLM folder says it has."""
    for name in ("_version.py", "version.py"):
        for node in _tree(vllm / name).body:
            match node:
                case ast.Assign(value=ast.Constant(value=str(version)), targets=targets):
                    names = [ast.unparse(t) for t in targets]
                    if {"__version__", "version"} & set(names):
                        return version
    return None


def probe(hooks: Sequence[Hook], vllm: Path) -> list[HookStatus]:
    """What `install` would find in the vLLM at `vllm`: one row per hook."""
    return [_probe(hook, vllm) for hook in hooks]


def _probe(hook: Hook, vllm: Path) -> HookStatus:
    reasons: list[str] = []
    for target in hook.targets:
        module, _, path = target.path.partition(":")
        class_name, _, method = path.partition(".")
        file = vllm.joinpath(*module.split(".")[1:]).with_suffix(".py")
        methods = _classes(file).get(class_name)
        if not file.exists():
            reasons.append(f"there is no {module}")
        elif methods is None:
            reasons.append(f"{module} has no class {class_name}")
        elif method not in methods:
            reasons.append(f"{class_name} has no {method}")
        else:
            return HookStatus(hook.name, "installed", target.path)
    return HookStatus(hook.name, "skipped", why="; ".join(dict.fromkeys(reasons)))


@cache
def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ast.Module([], [])


@cache
def _classes(file: Path) -> dict[str, set[str]]:
    return {
        node.name: {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.ClassDef)
    }
