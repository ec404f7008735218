"""The command line: it words what the parts do, and does nothing of its own.

One file per group of commands. A `ProfilemateError` of any part ends here, with one message and
exit code 2.
"""

from __future__ import annotations

import errno
import io
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
        app()
    except ProfilemateError as error:
        fail(error)
        sys.exit(error.exit_code)
    except OSError as e:
        if e.errno not in _FULL or e.filename is not None:
            raise
        why = e.strerror or str(e)
        hint = "Make room where it goes to, or send it elsewhere."
        fail(OutputError("cannot write the output", why=why, hint=hint))
        sys.exit(OutputError.exit_code)
