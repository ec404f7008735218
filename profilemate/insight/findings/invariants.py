"""Does the recording say anything that cannot be."""

from __future__ import annotations

from profilemate.insight.findings.base import Finding, Rule, When
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.reading import NoData, count
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables.invariants import INVARIANTS, doubted_tables


def _impossible(session: SavedSession, t: Thresholds) -> list[Finding]:
    told = [w for w in session.metadata.warnings if w.id in INVARIANTS]
    said = session.metadata
    if not told and not said.events and not said.coverage.get("kernels"):
        raise NoData("the recording holds nothing that could be checked")
    if not told:
        return []  # that nothing is wrong is no news
    tables = sorted(doubted_tables(w.id for w in told))
    evidence = {"invariants": ", ".join(w.id for w in told), "tables": ", ".join(tables)}
    title = f"{count(len(told), 'thing')} that cannot be: doubt {', '.join(tables)}"
    detail = " ".join(f"{w.text[:1].upper()}{w.text[1:]}." for w in told)
    return [IMPOSSIBLE.finding("impossible", title, detail, evidence)]


IMPOSSIBLE = Rule(
    name="invariants",
    area="Recording",
    question="Does the recording say anything that cannot be?",
    doc="Block operations, steps and GPU records are checked where they become tables: "
    + "; ".join(invariant.doc for invariant in INVARIANTS.values())
    + ".",
    verdicts={"impossible": When("critical", "any of them")},
    thresholds=(),
    source="a hook that a new vLLM made wrong, or a recorder that lost its clock, looks like this",
    limits="What is wrong and possible is not found.",
    files=("metadata.json",),
    judge=_impossible,
    per_engine=False,
)

RULES = (IMPOSSIBLE,)
