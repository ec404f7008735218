"""The command line: it words what the parts do, and does nothing of its own.

One file per group of commands. A `ProfilemateError` of any part ends here, with one message and
exit code 2.
"""

from __future__ import annotations

import errno
import io
import os
import sys

from profilemate.cli.app import app
from profilemate.cli.show import fail
from profilemate.errors import OutputError, ProfilemateError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

__all__ = ["app", "main"]


def main() -> None:
    """Run the `profilemate` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Request ids and paths are foreign text: no locale may turn a result into an error.
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # at exit it would be too late to say what is wrong
    except ProfilemateError as error:
        fail(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)  # as typer says it where it meets the end of a pipe itself
    except OSError as e:
        if e.errno not in _FULL or e.filename is not None:
            raise
        _drop_output()
        why = e.strerror or str(e)
        hint = "Make room where it goes to, or send it elsewhere."
        fail(OutputError("cannot write the output", why=why, hint=hint))
        sys.exit(OutputError.exit_code)


def _drop_output() -> None:
    """Send what could not be written nowhere: Python would try again as it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
