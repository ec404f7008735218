"""A figure that was made of a doubted table says so; others do not."""

from __future__ import annotations

from pathlib import Path

from frames import at, trace_of

from profilemate.insight.figures import figures
from profilemate.insight.findings import find
from profilemate.parse.pipeline import write_session
from profilemate.parse.session.saved import SavedSession

POOL = at(0, "kv.pool", pool=0, num_blocks=9, caching=True, used=0)
ALLOC = at(5, "kv.alloc", pool=0, ids=(3,), used=1)
FULL = at(9, "kv.usage", pool=0, used=10)
STEP = at(7, "step", dur=1, step=1, mode="NONE", num_tokens=8, unpadded=8)


def test_figures_of_doubted_tables_say_so(tmp_path: Path) -> None:
    write_session(trace_of([POOL, ALLOC, STEP, FULL]), tmp_path / "s")
    session = SavedSession.open(tmp_path / "s")
    (doubt,) = session.metadata.doubts
    found = figures(session)
    assert found["kv_peak_pct"].doubts == (doubt,)
    assert found["steps"].value == 1
    assert found["steps"].doubts == ()
    (finding,) = [f for f in find(session).findings if f.rule == "impossible"]
    assert finding.evidence["invariants"] == "used-outside-pool"


def test_of_a_clean_recording_nothing_is_doubted(tmp_path: Path) -> None:
    write_session(trace_of([POOL, ALLOC, STEP]), tmp_path / "s")
    session = SavedSession.open(tmp_path / "s")
    assert session.metadata.doubts == ()
    assert not any(value.doubts for value in figures(session).values())
    assert all(finding.rule != "impossible" for finding in find(session).findings)
