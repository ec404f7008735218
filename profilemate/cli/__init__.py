"""The command line: it words what the parts do, and does nothing of its own.

One file per group of commands. A `ProfilemateError` of any part ends here, with one message and
exit code 2.
"""

from __future__ import annotations

import io
import sys

from profilemate.cli.app import app
from profilemate.cli.show import fail
from profilemate.errors import ProfilemateError

__all__ = ["app", "main"]


def main() -> None:
    """Run the `profilemate` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Request ids and paths are foreign text: no locale may turn a result into an error.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except ProfilemateError as error:
        fail(error)
        sys.exit(error.exit_code)
