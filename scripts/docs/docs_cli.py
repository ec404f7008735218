"""Writes docs/cli.md: every command with its options, as the command line defines them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from profilemate.cli import app

TARGET = Path(__file__).resolve().parents[2] / "docs" / "cli.md"

HEAD = """# The command line

Made by `scripts/docs/docs_cli.py` from the commands themselves.

Exit status: 0, all went well; 1, a condition of `--fail-on` holds; 2, an error, which says on
stderr what failed, on which file, the likely reason, and what to type next. Results go to stdout,
errors and progress to stderr. Colours are left out where the output is no terminal or `NO_COLOR` is
set; lines are as wide as the terminal, 80 columns where there is none.
"""


def commands(command: Any, name: str = "profilemate") -> Iterator[tuple[str, Any]]:
    """Every command with its full name; of groups those that do something by themselves."""
    inside = getattr(command, "commands", None)
    if inside is None or (command.invoke_without_command and name != "profilemate"):
        yield name, command
    for word, sub in (inside or {}).items():
        yield from commands(sub, f"{name} {word}")


def section(name: str, command: Any) -> str:
    """One command in Markdown, in the order of a manual page."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = " ".join([name, "[OPTION]...", *map(_usage, arguments)])
    rows = [f"| `{_placeholder(p)}` | {_text(p)} |" for p in arguments]
    rows += [f"| {_spelled(p)} | {_text(p)} |" for p in options]
    rows.append("| `-h`, `--help` | Show the help and exit. |")
    parts = [f"## {name}", f"```\n{usage}\n```", _paragraphs(command.help)]
    parts.append("\n".join(["| argument or option | |", "| --- | --- |", *rows]))
    examples = inspect.cleandoc((command.epilog or "").replace("\b", "")).partition("\n")[2]
    if examples:
        parts.append(f"Examples:\n\n```bash\n{inspect.cleandoc(examples)}\n```")
    return "\n\n".join(parts) + "\n"


def _usage(argument: Any) -> str:
    return _placeholder(argument) if argument.required else f"[{_placeholder(argument)}]"


def _placeholder(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _spelled(option: Any) -> str:
    names = sorted([*option.opts, *option.secondary_opts], key=len)
    value = "" if option.is_flag else f" {_placeholder(option)}"
    return ", ".join(f"`{name}{value if name == names[-1] else ''}`" for name in names).replace(
        "|", "\\|"
    )


def _text(parameter: Any) -> str:
    text = " ".join((parameter.help or "").split()).replace("|", "\\|")
    if parameter.envvar:
        text += f" Environment: `{parameter.envvar}`."
    if parameter.default not in (None, False) and not callable(parameter.default):
        text += f" Default: `{parameter.default}`."
    return text


def _paragraphs(text: str | None) -> str:
    parts = re.split(r"\n\s*\n", inspect.cleandoc(text or "").replace("\b\n", ""))
    return "\n\n".join(" ".join(p.split()) for p in parts)


def text() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(*c) for c in commands(typer.main.get_command(app)))])


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
