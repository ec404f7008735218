"""Which names in a session directory are those of files that we write.

`metadata.json` lists the files of a session, but anybody may have written it: what is replaced,
moved or removed has one of these names, whatever a listing says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from profilemate.schema.live import METADATA

FURTHER_FILES = ("timeline.pftrace", "report.html", "findings.json")
"""What other writers put into a session directory."""

_RANK_FOLDER = re.compile(r"ranks/dp\d+_pp\d+_tp\d+(?:_\d+)?/(?=[^/]+$)")

# Tables of other versions, and those of kinds that others defined.
_FAMILY = re.compile(r"(?:kv|cuda_graph|custom)_[a-z0-9_]+\.(?:csv|txt)")


def listed_files(metadata: object) -> set[str]:
    """The files that a session's metadata lists, as far as we may have written them.

    Args:
        metadata: What `metadata.json` holds, whoever wrote it.
    """
    files = metadata.get("files") if isinstance(metadata, dict) else None
    names = (name for name in files if isinstance(name, str)) if isinstance(files, list) else ()
    return {name for name in names if _is_file(name, set())}


def session_file(tables: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path in a session directory, with slashes, is one that we write today.

    Args:
        tables: File names of the tables of today.
    """
    names = set(tables)
    return lambda path: _is_file(path, names, family=False)


def _is_file(path: str, tables: Collection[str], *, family: bool = True) -> bool:
    name = _RANK_FOLDER.sub("", path, count=1)
    if name == METADATA or name in FURTHER_FILES or name in tables:
        return True
    return family and _FAMILY.fullmatch(name) is not None
