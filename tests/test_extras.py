"""What is said to those who lack a package, and that nothing claims what no registry has yet."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib

import pytest
from places import ROOT

from profilemate.errors import EXTRAS, missing_extra

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]


def packages(extra: str) -> set[str]:
    """The packages of an extra, those of extras that it names included, without conditions."""
    found: set[str] = set()
    for line in DECLARED[extra]:
        requirement = line.partition(";")[0].strip()
        own = re.fullmatch(r"profilemate\[(.+)\]", requirement)
        found |= packages(own[1]) if own else {requirement}
    return found


@pytest.mark.parametrize("extra", sorted(set(DECLARED) - {"dev"}))
def test_the_command_for_a_missing_package_names_those_of_the_extra(extra: str) -> None:
    command = missing_extra(extra).splitlines()[-1]
    assert shlex.split(command)[:2] == ["pip", "install"]
    assert set(shlex.split(command)[2:]) == packages(extra)


def test_no_other_extra_is_named() -> None:
    assert set(EXTRAS) == set(DECLARED) - {"dev"}


def test_nothing_claims_that_a_registry_has_the_package() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--", "*.md", "profilemate", "scripts"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    for name in tracked.stdout.splitlines():
        if name.endswith((".md", ".py")) and (ROOT / name).exists():
            text = (ROOT / name).read_text("utf-8")
            assert not re.search(r"pip install\s+['\"]?profilemate", text), name
