"""Findings and comparisons on real recordings, against facts that others counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from places import RECORDING
from recorded import real_traces

from profilemate.insight.compare import compare
from profilemate.insight.findings import find
from profilemate.insight.findings.base import Verdict
from profilemate.insight.headline import headline
from profilemate.parse.pipeline import parse_session
from profilemate.parse.session.saved import SavedSession


def parsed(trace: Path, folder: Path) -> SavedSession:
    return SavedSession.open(parse_session([trace], folder / "s").path)


def by_rule(verdict: Verdict) -> dict[str, str]:
    """Findings but for the queues', which sessions of this version need not have."""
    return {f.rule: f.severity for f in verdict.findings if not f.rule.startswith("waiting")}


def test_a_server_that_was_given_too_few_blocks_on_purpose(tmp_path: Path) -> None:
    """39 blocks, no graphs: `scripts/record` says so. vLLM itself counted 12 preemptions."""
    session = parsed(RECORDING, tmp_path)
    verdict = find(session)
    assert by_rule(verdict) == {
        "kv-usage-full": "critical",
        "preemptions": "critical",
        "graphs-none": "warning",
        "events-complete": "good",
        "hooks-installed": "good",
        "clock-aligned": "good",
        "prefix-cache-good": "good",
    }
    reasons = {u.rule: u.why for u in verdict.unjudged}
    assert "no life in it can be longer than 10 s" in reasons["kv-evictions"]
    full = verdict.findings[0].evidence
    assert (full["total_blocks"], full["preemptions"]) == (39, 12)
    figures = {f.label: f.text for f in headline(session)}
    assert figures["KV usage"].startswith("peak 100 %, mean ")


def test_gpt_oss_on_an_rtx_3090(tmp_path: Path) -> None:
    """17 steps with tokens, all on graphs; 65 launches, all with kernels; no KV events at all."""
    trace = real_traces() / "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz"
    session = parsed(trace, tmp_path)
    verdict = find(session)
    assert by_rule(verdict) == {
        "gpu-complete": "good",
        "graphs-most": "good",
        "launches-cheap": "good",
        "gpu-busy": "good",
    }
    evidence = {f.rule: f.evidence for f in verdict.findings}
    assert evidence["gpu-complete"]["launches"] == 65
    assert evidence["graphs-most"]["full_steps"] == 15
    assert evidence["graphs-most"]["piecewise_steps"] == 2
    found = compare(session, session)
    assert found.caveats == []
    assert [(r.steps, r.outcome) for r in found.graphs.rows] == [
        ((15, 15), "few"),  # 20 are the least
        ((2, 2), "few"),
    ]


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("vllm_mi300x_mixed_piecewise.json.gz", {"gpu-complete": "good"}),
        ("vllm_b200_eager_prefill.json.gz", {}),
        ("training_v100_two_graphs_old_kineto.json.gz", {"gpu-complete": "good"}),
        ("nsys_h100_2gpu_no_graphs.sqlite", {}),
    ],
)
def test_one_step_and_foreign_programs_get_no_verdict_on_vllm(
    name: str, rules: dict[str, str], tmp_path: Path
) -> None:
    assert by_rule(find(parsed(real_traces() / name, tmp_path))) == rules
