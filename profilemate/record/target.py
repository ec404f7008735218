"""What is to be recorded: the Python that will run, and the vLLM in it. Nothing is imported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SHEBANG = re.compile(rb"#!\s*(\S+)")
_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")

# Options are looked for in the text of vLLM's parser: importing vLLM takes ten seconds.
_LOOK = """
import importlib.util, json, os
def there(name):
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
vllm = there("vllm")
folder = os.path.dirname(vllm.origin) if vllm and vllm.origin else None
parser = os.path.join(folder, "engine", "arg_utils.py") if folder else None
text = open(parser, encoding="utf-8").read() if parser and os.path.exists(parser) else ""
print(json.dumps({
    "vllm": folder,
    "profilemate": there("profilemate") is not None,
    "profiler_config": "--profiler-config" in text,
    "shutdown_timeout": "shutdown_timeout" in text,
}))
"""

SERVERS = ("serve", "vllm.entrypoints.openai.api_server", "vllm.entrypoints.api_server")
"""Words by which a command is known to start vLLM's server, whose options may be added to."""


@dataclass(frozen=True, slots=True)
class Target:
    """A command, and what its environment has.

    Attributes:
        command: The command as it was given.
        python: The Python that will run it; None where that cannot be told.
        vllm: Folder of the vLLM that this Python would import.
        annotates: profilemate is installed beside it.
        profiler_config: vLLM has the option `--profiler-config`.
        shutdown_timeout: vLLM has the option `--shutdown-timeout`.
    """

    command: tuple[str, ...]
    python: str | None = None
    vllm: str | None = None
    annotates: bool = False
    profiler_config: bool = False
    shutdown_timeout: bool = False

    @property
    def serves(self) -> bool:
        """Whether it starts vLLM's own server."""
        return any(word in SERVERS for word in self.command[:4])

    def has(self, option: str) -> bool:
        """Whether the user has given this option, in either of vLLM's spellings."""
        spellings = (option, option.replace("-", "_").replace("__", "--", 1))
        return any(
            word == s or word.startswith((f"{s}=", f"{s}."))
            for word in self.command
            for s in spellings
        )


def python_of(command: Sequence[str]) -> str | None:
    """The Python that a command runs: itself, or the one in the first line of a script."""
    found = shutil.which(command[0])
    if found is None:
        return None
    if _PYTHON.fullmatch(Path(found).name):
        return found
    try:
        with open(found, "rb") as file:
            match = _SHEBANG.match(file.readline(4096))
    except OSError:
        return None
    interpreter = match[1].decode(errors="replace") if match else ""
    return interpreter if _PYTHON.fullmatch(Path(interpreter).name) else None


def look(command: Sequence[str]) -> Target:
    """Find out what a command would run."""
    python = python_of(command)
    if python is None:
        return Target(tuple(command))
    try:
        done = subprocess.run(
            [python, "-c", _LOOK], capture_output=True, text=True, timeout=60, check=True
        )
        said = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return Target(tuple(command), python)
    return Target(
        tuple(command),
        python,
        said["vllm"],
        said["profilemate"],
        said["profiler_config"],
        said["shutdown_timeout"],
    )
