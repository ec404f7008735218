"""What becomes of text from outside before people read it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from places import ROOT

from profilemate.errors import InputError
from profilemate.printable import printable, printable_lines, shell_word

PACKAGE = ROOT / "profilemate"


def obeyed(char: str) -> bool:
    """Whether a terminal does something else with it than show it; the witness is Unicode's own."""
    turns = unicodedata.bidirectional(char) in {
        *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    }
    return turns or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


def test_every_character_is_shown_or_spelled() -> None:
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        shown = printable(char)
        if obeyed(char):
            assert shown != char, hex(code)
        assert not any(map(obeyed, shown)), hex(code)
        if char.isprintable():
            assert shown == char, hex(code)
        elif shown != char:
            assert shown.encode("ascii").decode("unicode_escape") == char, hex(code)


def test_words_and_lines_stay_as_they_are() -> None:
    assert printable("größer 大 \U0001f469‍\U0001f52c \\x1b [red]") == (
        "größer 大 \U0001f469‍\U0001f52c \\x1b [red]"
    )
    assert printable(Path("a") / "b") == "a/b"
    assert printable("a\nb\tc\r\x1b]0;x\x07\x9b\x7f\u202e\udc80") == (
        r"a\nb\tc\r\x1b]0;x\x07\x9b\x7f\u202e\udc80"
    )
    assert printable_lines("a\nb\x1b\n") == "a\nb\\x1b\n"


@pytest.mark.parametrize(
    "name",
    [
        b"plain.json",
        b"two words.json",
        b'it\'s $HOME `x` \\ "q".json',
        b"\x1b]0;PWNED\x07.json",
        b"line\nand 'quote' \\ \n.json",
        b"no utf-8: \xff\xfe.json",
        "größer\u202e.json".encode(),
    ],
)
def test_a_word_of_a_command_is_the_path_again_for_a_shell(name: bytes) -> None:
    word = shell_word(Path(os.fsdecode(name)))
    assert printable(word) == word
    done = subprocess.run(
        ["bash", "-c", f"printf %s {word}"], capture_output=True, check=True, env={"LC_ALL": "C"}
    )
    assert done.stdout == name


def test_a_path_is_not_taken_for_an_option() -> None:
    assert shell_word(Path("-rf")) == "./-rf"
    assert shell_word("-o") == "-o", "a word that is no path stays"


def test_an_error_is_printable_and_keeps_what_it_was_given() -> None:
    evil = "\x1b[31m\nType: x\u202e"
    error = InputError(evil, path=evil, why=evil, hint=evil, command=f"ls {shell_word(evil)}")
    shown = r"\x1b[31m\nType: x\u202e"
    assert str(error).splitlines() == [
        f"{shown}: {shown}",
        f"  {shown}",
        f"  {shown}",
        r"  ls $'\x1b[31m\x0aType: x\xe2\x80\xae'",
    ]
    assert (error.what, error.path, error.why) == (evil, evil, evil)


# ------------------------------------------------------------------ nothing prints past it

PRINTERS = {
    "cli/show.py",
    "annotate/faults.py",
    "annotate/door/sitecustomize.py",  # an ImportError, before profilemate can be imported
    "parse/finalise.py",
}
"""Files that write to a terminal or a log."""


def called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def writes(node: ast.AST) -> bool:
    name = called(node)
    return name in ("print", "pprint", "typer.echo", "typer.secho", "click.echo") or name.endswith(
        ("stdout.write", "stderr.write", "warnings.warn")
    )


def test_only_these_files_print() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if writes(node)
    }
    assert found == PRINTERS


SHOWN = ("text", "Text.assemble", "Text.from_ansi")
OURS = {"table", "word"}
"""Names of what holds no foreign text, or texts that went through `text` before."""


def safe(node: ast.AST) -> bool:
    """Whether what is printed is a constant or went through `text`."""
    if called(node) == "Text.assemble":
        assert isinstance(node, ast.Call)
        return all(map(safe, node.args))
    if isinstance(node, ast.Tuple):  # a text and its style
        return all(isinstance(n, ast.Constant | ast.Name) or called(n) for n in node.elts) and (
            isinstance(node.elts[0], ast.Constant) or "word" in ast.unparse(node.elts[0])
        )
    if isinstance(node, ast.Name):
        return node.id in OURS
    return isinstance(node, ast.Constant) or called(node) in SHOWN


def test_whatever_commands_print_goes_through_text() -> None:
    """Every `print` of a console, every cell of a table and every `Text` of the command line."""
    calls = 0
    for path in (PACKAGE / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name, place = called(node), f"{path.name}: {ast.unparse(node)}"
            if not isinstance(node, ast.Call):
                continue
            if name.endswith(".print") and not any(called(a) == "Text" for a in node.args):
                calls += 1
                assert all(map(safe, node.args)), place
            elif name.endswith(".add_row"):
                calls += 1
                (cells,) = node.args
                assert isinstance(cells, ast.Starred), place
                assert called(cells.value) == "row_of", place
            elif name == "Text":
                assert path.name == "show.py", place
                (what, *_) = map(ast.unparse, node.args)
                assert what in ("printable(value)", "spelled"), place
            elif name in ("Console", "Progress", "TextColumn"):
                assert path.name == "show.py", place
                if name == "TextColumn":
                    assert "markup=False" in ast.unparse(node), place
    assert calls > 15


def test_logs_and_the_engines_stderr_go_through_printable() -> None:
    for name in ("annotate/faults.py", "parse/finalise.py"):
        tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and writes(node):
                assert "printable" in ast.unparse(node), name
