"""Errors that speak to the person at the keyboard.

    ProfilemateError            what failed, on which file, the likely reason, what to type next
    ├── InputError              a recording that cannot be read
    │   └── NotThisFormatError  the file is something else than its reader expected
    ├── OutputError             a result that cannot be written
    ├── ToolError               a program or package that is missing, too old or failed
    └── SchemaError             a message that breaks the wire format

Every one ends the command line with exit code 2 and no traceback. What to type stands on a line of
its own, as it is typed, so that it can be copied. An assertion is for our own
mistakes, never for the user's input.
"""

from __future__ import annotations

from pathlib import Path

from profilemate.printable import printable

EXTRAS = {
    "dask": ("distributed>=2024.1",),
    "export": ("prometheus_client>=0.20",),
    "fast": ("isal>=1.7", "pyarrow>=18", "backports.zstd>=1.0"),
    "hta": ("traceinsight>=0.6.1",),
    "parquet": ("pyarrow>=18",),
    "perfetto": ("perfetto>=0.56",),
    "report": ("jinja2>=3.1", "vl-convert-python>=1.9"),
    "view": ("perfetto>=0.56", "viztracer>=1.1"),
}
"""What each extra adds, as `pyproject.toml` has it, for those who are told what they lack."""


class ProfilemateError(Exception):
    """A failure that the user can do something about.

    Args:
        what: What failed, in one clause.
        path: The file or directory it failed on, if any.
        why: The likely reason.
        hint: What to do next, in words.
        command: What to type next: a command, or several. Paths in it went through `shell_word`.

    Parts are kept as they were given; `str` of it, and the command line, print them.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        path: Path | str | None = None,
        why: str = "",
        hint: str = "",
        command: str | tuple[str, ...] = (),
    ) -> None:
        self.what = what
        self.path = None if path is None else str(path)
        self.why = why
        self.hint = hint
        self.commands = command if isinstance(command, tuple) else (command,) * bool(command)
        super().__init__(str(self))

    def __str__(self) -> str:
        return "\n  ".join([self.headline, *map(printable, self.reasons), *self.to_type])

    @property
    def headline(self) -> str:
        """What failed, and on which file; one printable line."""
        return printable(self.what if self.path is None else f"{self.what}: {self.path}")

    @property
    def reasons(self) -> list[str]:
        """The likely reason and what to do next, as far as they are known."""
        return [part for part in (self.why, self.hint) if part]

    @property
    def to_type(self) -> list[str]:
        """The commands, a printable line each."""
        return [printable(command) for command in self.commands]


class InputError(ProfilemateError):
    """A recording cannot be read."""


class NotThisFormatError(InputError):
    """The file is not what its name or its reader promised."""


class OutputError(ProfilemateError):
    """A result cannot be written."""


class ToolError(ProfilemateError):
    """A program or package that is needed is missing, too old, or failed."""


class SchemaError(ProfilemateError):
    """A message does not follow the wire format of `profilemate.schema`."""


def missing_extra(extra: str) -> str:
    """The command that installs what an extra needs.

    The packages are named, not the extra: however profilemate came here (a clone on PYTHONPATH, a
    wheel, a registry), pip finds them.
    """
    return "pip install " + " ".join(f"'{p}'" for p in EXTRAS[extra])
