"""Options of the whole suite."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag that refreshes golden files; say in the commit message why they moved."""
    parser.addoption("--update-references", action="store_true", help="rewrite golden files")


def pytest_configure() -> None:
    """What tests read is neither found in the user's cache nor left there."""
    os.environ["PROFILEMATE_CACHE_MB"] = "0"
