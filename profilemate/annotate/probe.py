"""Which hooks would find their place in a vLLM, read from its source and without importing it.

Importing vLLM takes seconds and needs its dependencies; the class, def and import statements of a
dozen files say the same.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from profilemate.annotate.hook import Hook, HookStatus, Target


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


def probe(hooks: Sequence[Hook], vllm: Path, torch: Path | None = None) -> list[HookStatus]:
    """What `install` would find in the vLLM at `vllm`: one row per hook.

    `torch` is the folder of torch's package, beside vLLM's unless given. Where it is not, the hooks
    in torch are called `waiting`.
    """
    roots = {"vllm": vllm, "torch": vllm.with_name("torch") if torch is None else torch}
    return [_probe(hook, roots) for hook in hooks]


def _probe(hook: Hook, roots: Mapping[str, Path]) -> HookStatus:
    reasons: list[str] = []
    for target in hook.targets:
        package = target.module.partition(".")[0]
        if package not in roots or not roots[package].is_dir():
            return HookStatus(hook.name, "waiting", why=f"there is no {package} to look at")
        why = _missing(target, roots)
        if why is None:
            return HookStatus(hook.name, "installed", target.path)
        reasons.append(why)
    return HookStatus(hook.name, "skipped", why="; ".join(dict.fromkeys(reasons)))


def _missing(target: Target, roots: Mapping[str, Path]) -> str | None:
    """What stands in a target's way, or None."""
    file = _file(target.module, roots)
    if file is None:
        return f"there is no {target.module}"
    if not target.owner:
        known = target.attribute in _functions(file) or target.attribute in _imports(file)
        return None if known else f"{target.module} has no {target.attribute}"
    methods = _methods(file, target.owner, roots)
    if methods is None:
        return f"{target.module} has no class {target.owner}"
    return None if target.attribute in methods else f"{target.owner} has no {target.attribute}"


def _file(module: str, roots: Mapping[str, Path]) -> Path | None:
    """The source of a module of one of the packages, or None."""
    package, *names = module.split(".")
    if package not in roots:
        return None
    place = roots[package].joinpath(*names)
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((f for f in files if f.is_file()), None)


def _methods(file: Path, name: str, roots: Mapping[str, Path]) -> set[str] | None:
    """The methods of a class that a module defines or imports by its name, with its bases'."""
    found = _classes(file).get(name)
    if found is None:
        origin = _imports(file).get(name)
        place = None if origin is None else _file(origin[0], roots)
        return None if origin is None or place is None else _methods(place, origin[1], roots)
    methods, bases = found
    return methods.union(*(_methods(file, base, roots) or () for base in bases if base != name))


@cache
def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ast.Module([], [])


@cache
def _classes(file: Path) -> dict[str, tuple[set[str], list[str]]]:
    """Classes of a module: the methods of each, and its bases."""
    return {
        node.name: (
            {f.name for f in node.body if isinstance(f, ast.FunctionDef)},
            [base.id for base in node.bases if isinstance(base, ast.Name)],
        )
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.ClassDef)
    }


@cache
def _functions(file: Path) -> set[str]:
    return {node.name for node in _tree(file).body if isinstance(node, ast.FunctionDef)}


@cache
def _imports(file: Path) -> dict[str, tuple[str, str]]:
    """What a module imports by name whenever it is imported: name -> (module, name there)."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in _tree(file).body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
