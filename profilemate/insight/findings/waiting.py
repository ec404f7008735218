"""Do requests wait, and is it the KV cache they wait for."""

from __future__ import annotations

import numpy as np

from profilemate.insight.figures import kv
from profilemate.insight.figures.steps import counting, step_rows
from profilemate.insight.findings.base import OURS, Finding, Rule, When
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.reading import NoData, count, floats, percent
from profilemate.parse.session.saved import SavedSession

_COLUMNS = ("waiting_requests", "running_requests", "kv_usage_pct")


def _judge(session: SavedSession, t: Thresholds) -> list[Finding]:
    frame = step_rows(session, *_COLUMNS)
    waiting, running, used = (floats(frame[c]) for c in _COLUMNS)
    known = ~np.isnan(waiting) & counting(frame)
    steps = int(known.sum())
    if steps < t["graph_steps_min"]:
        raise NoData(
            f"{count(steps, 'step')} with the scheduler's queues; "
            f"{t['graph_steps_min']:g} are needed"
        )
    waits = known & (waiting > 0)
    share = float(waits.sum() / steps)
    # What was in use while they waited: the most of it, for the batch may have been at its end.
    usage = float(np.nanmax(used[waits]) / 100) if (waits & ~np.isnan(used)).any() else None
    batch = float(np.nanmax(running[waits])) if (waits & ~np.isnan(running)).any() else None
    evidence = {
        "steps": steps,
        "waiting_pct": round(100 * share, 2),
        "most_waiting": int(np.nanmax(np.append(waiting[known], 0))),
        "most_running": None if batch is None else int(batch),
        "peak_usage_pct": None if usage is None else round(100 * usage, 2),
    }
    if share <= t["waiting_share"]:
        title = "Requests hardly wait" if share else "No request waits"
        detail = f"After {percent(share)} of {count(steps, 'step')} a request was waiting."
        return [RULE.finding("waiting-none", title, detail, evidence)]
    detail = (
        f"After {percent(share)} of {count(steps, 'step')} requests were waiting, at most "
        f"{count(float(evidence['most_waiting'] or 0), 'of them', 'of them')}"
    )
    room = int(batch * t["kv_usage_good_to"] / usage) if batch and usage else 0
    if kv.PREEMPTIONS.value(session).value:
        room = 0  # requests had to stop for want of blocks: a larger batch has no room
    if usage is None or batch is None or room <= batch:
        detail += "." if usage is None else f", with the KV cache {percent(usage)} full."
        title = f"Requests wait: after {percent(share)} of the steps"
        return [RULE.finding("waiting", title, detail, evidence)]
    detail += f", while the KV cache was never more than {percent(usage)} full."
    turn = (
        "--max-num-seqs",
        str(room),
        f"lets more than the {batch:,.0f} requests run that ran together at most: so many would "
        f"put the cache at {percent(t['kv_usage_good_to'], 0)}; or it is --max-num-batched-tokens "
        "that is too low",
    )
    title = f"Requests wait although the KV cache has room: peak {percent(usage)}"
    return [RULE.finding("waiting-with-room", title, detail, evidence, turn=turn)]


RULE = Rule(
    name="waiting",
    area="KV cache",
    question="Do requests wait, and for what?",
    doc="Steps with tokens after whose scheduling a request was waiting, of all that say it. "
    "The batch that is proposed is the largest that ran while others waited, scaled so that the "
    "highest KV usage of these steps comes to kv_usage_good_to: if that is more, there is room; "
    "not if any request was preempted.",
    verdicts={
        "waiting-with-room": When(
            "warning", "a share above waiting_share, and room for a larger batch"
        ),
        "waiting": When("info", "a share above waiting_share, and no room, or not known"),
        "waiting-none": When("good", "a share of waiting_share or less"),
    },
    thresholds=("waiting_share", "kv_usage_good_to", "graph_steps_min"),
    source=OURS,
    limits="A benchmark that sends all requests at once makes them wait by design: what counts "
    "then is throughput. A larger batch makes each step longer.",
    files=("cuda_graph_steps.csv",),
    judge=_judge,
)

RULES = (RULE,)
