"""The oldest versions of what profilemate stands on, as pyproject.toml names them.

pip installs the newest ones nearly everywhere, vLLM's environments hold older ones: both must work.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

EXTRAS = ("fast", "export", "perfetto", "report")
_LEAST = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)")
_NOT_TO_PARSE = ("nvtx", "wrapt")  # these run inside vLLM, and tests of theirs have both ends


def pins(pyproject: Path) -> list[str]:
    """What to install, each as `name==version`."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return sorted(_pins([*project["dependencies"], *(r for e in EXTRAS for r in extras[e])]))


def _pins(requirements: list[str]) -> Iterator[str]:
    for requirement in requirements:
        found = _LEAST.match(requirement)
        if found is None:
            raise ValueError(f"{requirement} names no oldest version")
        if found[1] not in _NOT_TO_PARSE:
            yield f"{found[1]}=={found[2]}"
