"""Sessions that somebody edited, or another version wrote: no traceback, whatever is missing."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pandas as pd
import pytest
from places import EXPECTED

from profilemate.insight.compare import compare
from profilemate.insight.findings import find
from profilemate.insight.headline import headline
from profilemate.parse.session.metadata import Metadata
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables import TABLES

METADATA: dict[str, Any] = json.loads((EXPECTED / "metadata.json").read_text())
READ = ("processes", "sources", "versions", "hooks", "coverage", "dropped", "events", "window_sec")


@cache
def frames() -> dict[str, pd.DataFrame]:
    """The tables of the golden session, read once: nobody writes into them."""
    session = SavedSession.open(EXPECTED)
    return {name: session.table(name) for name in TABLES}


def session_with(broken: dict[str, pd.DataFrame]) -> SavedSession:
    """The golden session with other tables in place of some."""
    return SavedSession(EXPECTED, Metadata.from_json(METADATA), {**frames(), **broken})


def look(broken: SavedSession) -> set[str]:
    """Use the session in every way; the rules that find something."""
    whole = session_with({})
    found = {finding.rule for finding in find(broken).findings}
    headline(broken)
    compare(broken, whole)
    compare(whole, broken)
    return found


@pytest.mark.parametrize("key", READ)
@pytest.mark.parametrize("value", [None, 5, [1], {}], ids=str)
def test_metadata(key: str, value: object) -> None:
    look(SavedSession(EXPECTED, Metadata.from_json({**METADATA, key: value})))


@pytest.mark.parametrize("name", [n for n, t in TABLES.items() if not t.heading])
def test_columns_that_are_gone_or_hold_nothing_or_words(name: str) -> None:
    frame = frames()[name]
    found = look(session_with({}))
    for column in frame.columns:
        words = frame.copy()
        words[column] = pd.Series("abc", index=frame.index, dtype="string")
        for broken in (frame.drop(columns=[column]), words):
            # What cannot be read is no reason to find anything.
            assert look(session_with({name: broken})) <= found
