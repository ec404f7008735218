"""Options of the whole suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag that refreshes golden files; say in the commit message why they moved."""
    parser.addoption("--update-references", action="store_true", help="rewrite golden files")
