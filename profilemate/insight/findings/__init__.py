"""Findings: what a session means, by rules that say where they come from.

A new rule is a row in the file of its area, or a file of its own and one row here.
"""

from __future__ import annotations

from profilemate.insight.findings import (
    cuda_graph_coverage,
    cuda_graph_padding,
    cuda_graph_use,
    gpu_time,
    invariants,
    kv_evictions,
    kv_requests,
    kv_usage,
    ranks,
    recording,
    waiting,
)
from profilemate.insight.findings.base import (
    SEVERITIES,
    Finding,
    Rule,
    Severity,
    Unjudged,
    Verdict,
    When,
    as_json,
    judge,
)
from profilemate.insight.findings.thresholds import THRESHOLDS, Threshold, Thresholds
from profilemate.parse.session.saved import SavedSession

__all__ = [
    "RULES",
    "SEVERITIES",
    "THRESHOLDS",
    "Finding",
    "Rule",
    "Severity",
    "Threshold",
    "Thresholds",
    "Unjudged",
    "Verdict",
    "When",
    "as_json",
    "find",
]

RULES: tuple[Rule, ...] = tuple(
    rule
    for module in (
        recording,
        invariants,
        kv_usage,
        kv_requests,
        kv_evictions,
        waiting,
        cuda_graph_coverage,
        cuda_graph_padding,
        cuda_graph_use,
        gpu_time,
        ranks,
    )
    for rule in module.RULES
)


def find(session: SavedSession, thresholds: Thresholds | None = None) -> Verdict:
    """Judge a session by every rule.

    Raises:
        InputError: A table of it cannot be read.
    """
    return judge(session, RULES, thresholds or Thresholds())
