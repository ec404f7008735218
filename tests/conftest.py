"""Options of the whole suite."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, not whether the code is right.
# Half of the examples that hypothesis draws by itself; `--hypothesis-profile thorough` draws more.
settings.register_profile("any machine", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=1000)
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


BROWSERS = (
    "test_compare_browser.py",
    "test_perfetto_ui.py",
    "test_report_page.py",
    "test_sidecar_in_perfetto.py",
)
"""Files whose tests drive a browser: two of them on two cores would wait for each other."""
RECORDED = ("recorded", "parsed", "version")
"""Fixtures that drive an engine for each of their parameters, for many tests."""


def _group(item: pytest.Item) -> str:
    """What runs in one process, one after the other: a file, whose fixtures are made once then."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    made = [f"{name} {params[name]}" for name in RECORDED if name in params]
    return "browser" if item.path.name in BROWSERS else " ".join([item.path.name, *made])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Side by side (`-n 2 --dist loadgroup`) engines come first: none is waited for at the end."""
    if hasattr(config, "workerinput"):
        _mark_groups(items)
    yield
    if config.getoption("loadgroup", False) and not all("@" in item.nodeid for item in items):
        raise pytest.UsageError("this pytest-xdist names no groups under this pytest")


def _mark_groups(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent.name != "e2e")
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
