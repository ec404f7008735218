"""Sessions that somebody edited, or another version wrote: no traceback, whatever is missing."""

from __future__ import annotations

import json
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


def look(broken: SavedSession) -> set[str]:
    """Use the session in every way; the rules that find something."""
    whole = SavedSession.open(EXPECTED)
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
    frame = SavedSession.open(EXPECTED).table(name)
    found = look(SavedSession.open(EXPECTED))
    for column in frame.columns:
        words = frame.copy()
        words[column] = pd.Series("abc", index=frame.index, dtype="string")
        for broken in (frame.drop(columns=[column]), words):
            # What cannot be read is no reason to find anything.
            assert (
                look(SavedSession(EXPECTED, Metadata.from_json(METADATA), {name: broken})) <= found
            )
