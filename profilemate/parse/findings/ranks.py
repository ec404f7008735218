"""Do all ranks take as long: what ranks.csv says of each process."""

from __future__ import annotations

import numpy as np
import pandas as pd

from profilemate.errors import InputError
from profilemate.parse.findings.base import OURS, Evidence, Finding, NoData, Rule, When
from profilemate.parse.findings.reading import count, floats, texts
from profilemate.parse.findings.thresholds import Thresholds
from profilemate.parse.saved import SavedSession
from profilemate.parse.tables import TABLES

_FILE = "ranks.csv"
_NAMES = ("rank", "role", "pid")


def _table(session: SavedSession) -> pd.DataFrame:
    if "ranks" in TABLES:
        return session.table("ranks")
    file = session.path / _FILE
    if not file.is_file():
        return pd.DataFrame()
    try:
        return pd.read_csv(file, na_values=["None"], keep_default_na=False)
    except (OSError, ValueError) as e:
        raise InputError("A table cannot be read", path=file, why=str(e)) from e


def _judge(session: SavedSession, t: Thresholds) -> list[Finding]:
    frame = _table(session)
    column = next((c for c in frame.columns if str(c).endswith("_ratio")), None)
    if frame.empty or column is None:
        raise NoData(
            "the session does not compare its ranks"
            if session.ranks()
            else "there is one rank only"
        )
    ratio = floats(frame[column])
    told = ~np.isnan(ratio)
    if told.sum() < 2:
        raise NoData("fewer than two ranks have replay latencies")
    worst = int(np.nanargmax(ratio))
    names = [c for c in _NAMES if c in frame.columns]
    name = " ".join(texts(frame[c])[worst] for c in names) or f"row {worst + 1}"
    late = int((ratio[told] >= t["straggler_ratio"]).sum())
    evidence: Evidence = {
        "ranks": int(told.sum()),
        "stragglers": late,
        "slowest": name,
        "ratio": round(float(ratio[worst]), 4),
    }
    detail = f"The slowest is {name}: {ratio[worst]:.3f} x the median rank's replay latency."
    if late:
        title = (
            f"{count(late, 'rank')} of {told.sum()} behind: up to {ratio[worst]:.2f} x the median"
        )
        return [RULE.finding("ranks-straggle", title, detail, evidence)]
    title = f"{count(int(told.sum()), 'rank')} in step"
    return [RULE.finding("ranks-even", title, detail, evidence)]


RULE = Rule(
    name="ranks",
    area="Ranks",
    question="Does one rank hold up the others?",
    doc="Each rank's replay latency over that of the median rank, as ranks.csv has it.",
    verdicts={
        "ranks-straggle": When("warning", "a rank with straggler_ratio or more"),
        "ranks-even": When("good", "none"),
    },
    thresholds=("straggler_ratio",),
    source=OURS,
    limits="In tensor parallelism the fast ranks wait for the slow one inside their own graphs: "
    "look at the launch and at the kernels of collectives before you suspect a GPU.",
    files=(_FILE,),
    judge=_judge,
    per_engine=False,
)

RULES = (RULE,)
