"""Fetch Prometheus and promtool from Debian's archive into a folder of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

from debian_packages import fetch, unpack
from installing import need_space, run, say

RECIPE = 1
"""Raised when what is done to the package changes, so that caches are built anew."""

SUITE = "bookworm"
"""The oldest release that serves: its programs need nothing but a C library that old."""

PROMETHEUS = Path("usr/bin/prometheus")
PROMTOOL = Path("usr/bin/promtool")


def build(place: Path) -> None:
    """Fill ``place`` with the two programs; the caller keeps it only if this returns."""
    need_space(place, 1, "Prometheus")
    say(f"fetching Prometheus (about 35 MB) from Debian's {SUITE}")
    _, packages = fetch(place, SUITE, "main", "prometheus")
    unpack(packages, place)
    shutil.rmtree(place / "apt")
    for program in (PROMETHEUS, PROMTOOL):
        run([str(place / program), "--version"], f"Starting {program.name}")
