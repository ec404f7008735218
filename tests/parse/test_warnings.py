"""What to keep in mind: worded once, stored by parse, and shown alike wherever it is shown."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from saved_build import METADATA, write_session
from sidecars import ENGINE, WORKER, Recorder, make_up, sidecar

from profilemate.insight.compare import compare
from profilemate.insight.findings import find
from profilemate.insight.report import draw_all, write_page
from profilemate.parse.pipeline import parse_session
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.session.warnings import CLOCKS, COUNTS, IDS
from profilemate.parse.tables.invariants import INVARIANTS

PACKAGE = ROOT / "profilemate"

FACTS: dict[str, Any] = {
    "notes": ["A reader's note."],
    "doubts": ["a doubt", "A reader's note."],
    "clock": {
        "alignment_error_ms": 3.0,
        "recordings": [{"name": "b.json", "error_ms": 2.5}, {"name": "a.json", "error_ms": 1.0}],
        "steps": {"compared": 9, "early": 4, "distance_ms": {"min": -1.25}},
    },
    "dropped": {
        "lost_batches": {"1": 2, "2": 1000},
        "broken_messages": 1,
        "unfinished_messages": 0,
        "unknown_events": {"pm1.new": 3},
    },
    "processes": [{"rank": "dp0_pp0_tp0", "faults": 1}, {"faults": 2}, {"faults": None}],
}
SENTENCES = {
    "doubt": "A reader's note.",
    "clock-apart": "the clock of b.json differs by up to 2.500 ms from the others': compare its "
    "times with theirs no closer than that",
    "steps-early": "4 of 9 model steps seem to begin before they were scheduled, by up to 1.250 "
    "ms: the clocks of scheduler and worker differ by at least that",
    "events-lost": "1,002 batches of events are missing from the recording: counts are too low",
    "messages-unread": "1 message could not be read and is left out",
    "events-unknown": "Events of a newer profilemate are left out: pm1.new",
    "hooks-failed": "profilemate's own hooks failed 3 times: please report vLLM's log",
}


def said(session: SavedSession) -> dict[str, str]:
    return {w.id: w.text for w in reversed(session.warnings) if w.id != "metadata-unread"}


def test_of_a_session_without_any_they_are_made_from_its_facts(tmp_path: Path) -> None:
    session = write_session(tmp_path / "s", **FACTS)
    assert said(session) == SENTENCES
    texts = [w.text for w in session.warnings]
    assert texts[:2] == ["A reader's note.", "a doubt"]
    assert len(texts) == len(set(texts))


def test_stored_ones_are_shown_as_they_are(tmp_path: Path) -> None:
    stored = [{"id": "of-the-future", "text": "Mind the gap."}]
    session = write_session(tmp_path / "s", **FACTS, warnings=stored)
    assert said(session) == {"of-the-future": "Mind the gap."}


@pytest.mark.parametrize("stored", [5, [5], [{"id": "x"}], [{"text": ["y"]}]])
def test_stored_ones_that_cannot_be_read_are_made_again(stored: Any, tmp_path: Path) -> None:
    assert said(write_session(tmp_path / "s", **FACTS, warnings=stored)) == SENTENCES


def test_page_comparison_and_findings_have_the_same_words(tmp_path: Path) -> None:
    session = write_session(tmp_path / "s", **FACTS)
    verdict = find(session)
    page = write_page(session, tmp_path / "p.html", draw_all(session), verdict).read_text()
    for text in SENTENCES.values():
        assert text in html.unescape(page), text
    other = write_session(tmp_path / "t", **METADATA)
    caveats = compare(other, session).caveats
    assert [c for c in caveats if c.startswith("B: ")] == [
        f"B: {SENTENCES[i]}" for i in (*CLOCKS, *COUNTS)
    ]
    titles = {f.rule: f.title for f in verdict.findings}
    assert titles["events-lost"] == SENTENCES["events-lost"]
    assert titles["hooks-failed"] == SENTENCES["hooks-failed"]


def test_parse_stores_what_the_terminal_shows(tmp_path: Path) -> None:
    run, far = make_up(1), make_up(1, host="box-2")
    (engine,) = sidecar(tmp_path / "a", run, ENGINE, run.said, Recorder())
    (worker,) = sidecar(tmp_path / "b", far, WORKER, far.said, Recorder(off=-700_000))
    done = parse_session([engine, worker], tmp_path / "out")
    session = SavedSession.open(tmp_path / "out")
    assert [w.text for w in session.warnings] == done.warnings
    assert "steps-early" in said(session)
    page = write_page(session, tmp_path / "p.html", draw_all(session), find(session)).read_text()
    assert said(session)["steps-early"] in html.unescape(page)
    # The same session as an older version would have written it: the same warnings.
    made = type(session.metadata).from_json(
        {k: v for k, v in session.metadata.to_json().items() if k != "warnings"}
    )
    assert [w.text for w in made.warnings] == done.warnings


def test_every_id_is_documented_and_worded_in_one_place() -> None:
    used: dict[str, int] = {}
    words = 0
    for file in sorted(PACKAGE.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        for name in re.findall(r'SessionWarning\(\s*"([a-z-]+)"', text):
            used[name] = used.get(name, 0) + 1
        words += text.count("missing from the recording") + text.count("hooks failed {")
    assert set(used) == IDS.keys() - INVARIANTS.keys()  # these are worded in their registry
    assert {*COUNTS, *CLOCKS} <= set(IDS)
    assert words == 2
