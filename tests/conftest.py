"""Options of the whole suite."""

from __future__ import annotations

import os
import signal

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
    # A shell without job control ignores Ctrl-C for what it starts in the background, and whatever
    # that starts would too: tests that interrupt programs would wait for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
