"""`findings.json` in a session directory."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from profilemate.errors import OutputError

NAME = "findings.json"


def write_findings(session: Path, findings: Mapping[str, object]) -> Path:
    """Write the findings into a session, whole or not at all, in place of older ones.

    Args:
        session: The session directory.
        findings: The object to write, as JSON can spell it.

    Returns:
        The file.

    Raises:
        OutputError: It cannot be written; an older one is as it was.
    """
    target = session / NAME
    try:
        handle, scratch = tempfile.mkstemp(prefix=f".{NAME}.", suffix=".part", dir=session)
    except OSError as e:
        raise _refused(target, e) from e
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(findings, indent=2) + "\n")
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(scratch, 0o666 & ~umask)
        os.replace(scratch, target)
    except OSError as e:
        raise _refused(target, e) from e
    finally:
        Path(scratch).unlink(missing_ok=True)
    return target


def _refused(target: Path, error: OSError) -> OutputError:
    return OutputError(
        "cannot write the findings",
        path=target,
        why=error.strerror or str(error),
        hint="print them instead, and write them where you may: --json > findings.json",
    )
