"""Findings on the recording itself and on ranks, and what every rule must keep to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from saved_build import METADATA, write_session, write_tables

from profilemate.errors import InputError
from profilemate.insight.findings import RULES, find
from profilemate.insight.findings.base import SEVERITIES, Finding, as_json
from profilemate.insight.findings.thresholds import THRESHOLDS, Thresholds
from profilemate.parse.session.saved import SavedSession


def found(folder: Path, rule: str, **metadata: Any) -> list[Finding]:
    verdict = find(write_session(folder / "s", **metadata))
    names = next(r.verdicts for r in RULES if r.name == rule)
    return [f for f in verdict.findings if f.rule in names]


def dropped(**values: object) -> dict[str, object]:
    return {**METADATA["dropped"], **values}


@pytest.mark.parametrize(
    ("values", "rule", "severity"),
    [
        ({}, "events-complete", "good"),
        ({"lost_batches": {"17": 1}}, "events-lost", "critical"),
        ({"broken_messages": 1}, "events-unread", "warning"),
        ({"unfinished_messages": 1}, "events-unread", "warning"),
        ({"unknown_events": {"pm1.new": 3}}, "events-unread", "warning"),
    ],
)
def test_lost_events(tmp_path: Path, values: dict[str, object], rule: str, severity: str) -> None:
    (finding,) = found(tmp_path, "events", dropped=dropped(**values))
    assert (finding.rule, finding.severity) == (rule, severity)


@pytest.mark.parametrize(
    ("launches", "matched", "rule", "severity"),
    [
        (1000, 1000, "gpu-complete", "good"),
        (1000, 990, "gpu-records-missing", "info"),
        (1000, 989, "gpu-records-missing", "warning"),
        (1000, 0, "gpu-none", "warning"),
        (1000, None, "gpu-none", "warning"),
        (0, 0, "", ""),
        (None, None, "", ""),
    ],
)
def test_gpu_records(
    tmp_path: Path, launches: int | None, matched: int | None, rule: str, severity: str
) -> None:
    coverage = {"launches": launches, "launches_with_gpu_records": matched, "kernels": None}
    findings = found(tmp_path, "gpu-records", coverage=coverage)
    assert [(f.rule, f.severity) for f in findings] == ([(rule, severity)] if rule else [])


KV_GONE = {"BlockPool.touch": "no such method"}


@pytest.mark.parametrize(
    ("metadata", "rules"),
    [
        ({}, ["hooks-installed"]),
        ({"processes": [{"faults": 2}]}, ["hooks-failed"]),
        ({"kv_cache_tracking": False}, ["hooks-off"]),
        (
            {
                "kv_cache_tracking": False,
                "hooks": {"installed": {"x": "y"}, "skipped": KV_GONE, "waiting": {}},
            },
            ["hooks-missing"],
        ),
        ({"hooks": {"installed": {}, "skipped": {}, "waiting": {}}}, []),
    ],
)
def test_hooks(tmp_path: Path, metadata: dict[str, Any], rules: list[str]) -> None:
    assert [f.rule for f in found(tmp_path, "hooks", **metadata)] == rules


@pytest.mark.parametrize(("error", "rule"), [(10.0, "clock-aligned"), (10.1, "clock-apart")])
def test_clock(tmp_path: Path, error: float, rule: str) -> None:
    (finding,) = found(tmp_path, "clock", clock={"alignment_error_ms": error})
    assert finding.rule == rule


@pytest.mark.parametrize(
    ("slowest", "rule"),
    [("1.0999", "ranks-even"), ("1.1", "ranks-straggle"), ("None", "ranks-even")],
)
def test_ranks_of_a_group_and_not_those_of_other_stages(
    tmp_path: Path, slowest: str, rule: str
) -> None:
    header = ["rank", "pid", "dp_rank", "pp_rank", "replay_p50_ms"]
    ranks = [(0, 0, "1.0"), (0, 1, "1.0"), (0, 2, slowest)]  # one stage, its median 1 ms
    ranks += [(1, 0, "7.0"), (1, 1, "7.0")]  # a longer stage is no straggler
    rows = [[f"pp{pp}_tp{tp}", 10 * pp + tp, 0, pp, ms] for pp, tp, ms in ranks]
    rows.append(["engine", 99, 0, None, None])
    tables = {"ranks": [dict(zip(header, row, strict=True)) for row in rows]}
    verdict = find(write_session(tmp_path / "t", tables))
    (finding,) = [f for f in verdict.findings if f.rule.startswith("ranks")]
    assert finding.rule == rule
    if rule == "ranks-straggle":
        assert "pp0_tp2" in finding.detail


# --------------------------------------------------------------------------- every rule


def test_an_empty_session_has_no_verdict_and_a_reason_for_each_rule(tmp_path: Path) -> None:
    verdict = find(write_session(tmp_path / "s", events={}, hooks={}, coverage={}, clock={}))
    assert verdict.findings == []
    assert verdict.worst() is None
    assert [u.rule for u in verdict.unjudged] == [r.name for r in RULES]
    assert all(u.why for u in verdict.unjudged)


def test_a_metadata_of_another_program_has_no_verdict_either(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    write_tables(tmp_path / "s", {})
    (tmp_path / "s" / "metadata.json").write_text('{"session_id": "old"}')
    session = SavedSession.open(tmp_path / "s")
    verdict = find(session)
    assert [f.rule for f in verdict.findings] == []


def test_ids_are_unique_and_documented() -> None:
    ids = [name for rule in RULES for name in rule.verdicts]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in ids)
    for rule in RULES:
        assert all((rule.question, rule.doc, rule.source, rule.limits, rule.files)), rule.name
        assert all(when.severity in SEVERITIES and when.when for when in rule.verdicts.values())
    used = {name for rule in RULES for name in rule.thresholds}
    assert used == set(THRESHOLDS), "each threshold is some rule's, each rule's is declared"


def test_findings_are_sorted_and_spelled_for_machines(tmp_path: Path) -> None:
    session = write_session(
        tmp_path / "s", dropped=dropped(lost_batches={"1": 1}), clock={"alignment_error_ms": 11}
    )
    spelled = as_json(find(session))
    order = [SEVERITIES.index(f["severity"]) for f in spelled["findings"]]
    assert order == sorted(order)
    assert spelled["worst"] == "critical"
    assert set(spelled["findings"][0]) == set(Finding.__dataclass_fields__)


# --------------------------------------------------------------------------- thresholds


def test_thresholds_come_from_lines_and_files_the_later_wins(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("kv_usage_low = 0.2\npadding_high = 0.5\n")
    limits = Thresholds.parse([str(file), "kv_usage_low=0.3"])
    assert limits.changed() == {"kv_usage_low": 0.3, "padding_high": 0.5}
    assert limits["kv_usage_full"] == 0.9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kv_usage_lo=0.3", "Did you mean kv_usage_low?"),
        ("nonsense=1", "report --thresholds"),
        ("kv_usage_low=much", "must be a number"),
        ("kv_usage_low=-1", "must be a number"),
        ("kv_usage_low=nan", "must be a number"),
        ("absent.toml", "absent.toml"),
    ],
)
def test_a_threshold_that_is_none(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        Thresholds.parse([text])
    assert said in str(error.value)


def test_a_file_of_thresholds_with_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("kv_usage_low = true\n")
    with pytest.raises(InputError, match="kv_usage_low"):
        Thresholds.parse([str(file)])
    file.write_text("kv_usage_low = \n")
    with pytest.raises(InputError, match=r"limits\.toml"):
        Thresholds.parse([str(file)])
