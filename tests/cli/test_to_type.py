"""Commands in errors: on lines of their own, as they are typed."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from profilemate.cli import app
from profilemate.cli.show import fail
from profilemate.errors import EXTRAS, InputError, missing_extra
from profilemate.printable import shell_word

PACKAGE = ROOT / "profilemate"
PROGRAMS = "pip install|nsys (?:export|profile|--version)|dask scheduler|QdstrmImporter -|ls -|ls /"
NAMES = "|".join(
    [c.callback.__name__ for c in app.registered_commands if c.callback]
    + [str(g.name) for g in app.registered_groups]
)
COMMAND = re.compile(rf"\b(?:{PROGRAMS}|profilemate (?:{NAMES}))\b|`profilemate ")
ERRORS = re.compile(r"(?:Input|Output|Tool|Schema|NotThisFormat|Profilemate)Error|Stranger")


def texts(node: ast.expr) -> str:
    """The constant text of an expression."""
    return "".join(
        n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    )


def errors() -> list[tuple[str, ast.Call]]:
    return [
        (f"{path.relative_to(PACKAGE)}:{node.lineno}", node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ERRORS.fullmatch(ast.unparse(node.func))
    ]


def test_no_command_stands_among_the_words_of_an_error() -> None:
    assert len(errors()) > 90
    for place, call in errors():
        words = [*call.args[:1], *(k.value for k in call.keywords if k.arg in ("why", "hint"))]
        for value in words:
            assert not COMMAND.search(texts(value)), (place, texts(value))


def test_a_command_stands_alone_and_its_paths_are_quoted() -> None:
    commands = 0
    for place, call in errors():
        for value in (k.value for k in call.keywords if k.arg == "command"):
            commands += 1
            text = texts(value)
            assert not text.startswith(("'", '"', "`", "Type")), (place, text)
            assert not text.rstrip().endswith((".", ",", ":", "`")), (place, text)
            for node in ast.walk(value):
                if isinstance(node, ast.FormattedValue):
                    said = ast.unparse(node.value)
                    known = "shell_word" in said or said.startswith(("names", "_typed"))
                    assert known, (place, said)
    assert commands > 30


@pytest.mark.parametrize("width", [20, 80])
def test_it_is_printed_last_and_uncut(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    path = Path("/a folder/with 'many' words in its name, and a very long name at that/x.json")
    command = f"profilemate parse {shell_word(path)} -o session"
    fail(InputError("what", why="why " * 20, hint="hint " * 20, command=(command, "second")))
    *_, first, second = capsys.readouterr().err.splitlines()
    assert first == f"  {command}"
    assert shlex.split(first) == ["profilemate", "parse", str(path), "-o", "session"]
    assert second == "  second"


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_installs_an_extra_is_a_command(extra: str) -> None:
    assert shlex.split(missing_extra(extra)) == ["pip", "install", *EXTRAS[extra]]


def test_what_is_told_can_be_typed(tmp_path: Path) -> None:
    """A file with a hostile name is given in the place of a session, and the hint is followed."""
    folder = tmp_path / "it's a\nfolder"
    folder.mkdir()
    file = folder / "-x $HOME.json"
    file.write_text('{"schemaVersion": 1, "traceEvents": []}')
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "profilemate", "report", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    *_, told = done.stderr.splitlines()
    assert told.startswith("  profilemate parse ")
    typed = told.replace("profilemate", f"{shlex.quote(sys.executable)} -m profilemate", 1)
    again = subprocess.run(
        ["bash", "-c", typed], capture_output=True, text=True, env=env, cwd=tmp_path, check=False
    )
    assert "holds no events" in again.stderr, "it found the file"


def test_each_command_that_is_told_exists() -> None:
    for place, call in errors():
        for value in (k.value for k in call.keywords if k.arg == "command"):
            for name in re.findall(r"\bprofilemate (\w+)", texts(value)):
                assert name in NAMES.split("|"), (place, name)
