"""The code of wrappers is text that no type checker reads: what it names has to be there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import profilemate.annotate
from profilemate.annotate.emit import Emitter

ROOT = Path(profilemate.annotate.__file__).parent
NAMED = re.compile(r"\bpm_(emitter|state|step|serving)((?:\.[a-z_]+)+)")


def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text("utf-8")) for path in ROOT.rglob("*.py")}


def named_in_code() -> list[tuple[Path, str, list[str]]]:
    """File, object and attributes (`step.running` is two) of what code in strings names."""
    return [
        (path, found[1], found[2].strip(".").split("."))
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for found in NAMED.finditer(node.value)
    ]


def objects() -> dict[str, object]:
    emitter = Emitter(lambda: ([], "a test"))
    state = emitter.state
    return {"emitter": emitter, "state": state, "step": emitter.step, "serving": state.serving}


def test_what_the_code_of_wrappers_names_is_there() -> None:
    named = named_in_code()
    assert {"active", "armed", "counting", "slots"} <= {names[-1] for _, _, names in named}
    for path, name, attributes in named:
        found = objects()[name]
        for attribute in attributes:
            assert hasattr(found, attribute), f"{path.name}: {name} has no {attribute}"
            found = getattr(found, attribute)


def test_what_only_such_code_asks_for_says_who_does() -> None:
    read_elsewhere = {
        node.attr
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    hidden = []
    for path, name, attributes in named_in_code():
        owner = objects()[name]
        for attribute in attributes:
            if attribute not in read_elsewhere:
                hidden.append(attribute)
                definition = getattr(type(owner), attribute, type(owner))
                described = inspect.getdoc(definition) or ""
                assert str(path.relative_to(ROOT)) in described, f"who reads {attribute}?"
            owner = getattr(owner, attribute)
    assert {"armed", "counting"} <= set(hidden)
