"""Do all ranks take as long: what ranks.csv says of each process."""

from __future__ import annotations

import numpy as np
import pandas as pd

from profilemate.insight.findings.base import OURS, Evidence, Finding, Rule, When
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.reading import Floats, NoData, count, floats, texts
from profilemate.parse.session.saved import SavedSession

_FILE = "ranks.csv"
_NAMES = ("rank", "role", "pid")
_NEEDED = ("replay_p50_ms", "dp_rank", "pp_rank")


def _ratios(frame: pd.DataFrame) -> Floats:
    """Each rank's median replay over that of its tensor-parallel group; NaN where it has none."""
    latency, dp, pp = (floats(frame[c]) for c in _NEEDED)
    ratio = np.full(len(frame), np.nan)
    for mine in {(d, p) for d, p in zip(dp, pp, strict=True) if not np.isnan(d + p)}:
        group = (dp == mine[0]) & (pp == mine[1]) & ~np.isnan(latency)
        if group.sum() > 1:
            ratio[group] = latency[group] / np.median(latency[group])
    return np.round(ratio, 9)


def _judge(session: SavedSession, t: Thresholds) -> list[Finding]:
    frame = session.table("ranks")
    if frame.empty or not set(_NEEDED) <= set(frame.columns):
        raise NoData(
            "the session does not compare its ranks"
            if session.ranks()
            else "there is one rank only"
        )
    ratio = _ratios(frame)
    told = ~np.isnan(ratio)
    if not told.any():
        raise NoData("no two tensor-parallel ranks have replay latencies")
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
    detail = f"The slowest is {name}: {ratio[worst]:.3f} x the median replay of its group."
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
    doc="Each rank's median replay (replay_p50_ms of ranks.csv) over the median of its "
    "tensor-parallel group: ranks of one data-parallel and one pipeline-parallel rank, which run "
    "the same batches through the same layers.",
    verdicts={
        "ranks-straggle": When("warning", "a rank with straggler_ratio or more"),
        "ranks-even": When("good", "none"),
    },
    thresholds=("straggler_ratio",),
    source=OURS,
    limits="Pipeline stages and data-parallel engines are not compared: they do different work. "
    "In tensor parallelism the fast ranks wait for the slow one inside their own graphs: "
    "look at the launch and at the kernels of collectives before you suspect a GPU.",
    files=(_FILE,),
    judge=_judge,
    per_engine=False,
)

RULES = (RULE,)
