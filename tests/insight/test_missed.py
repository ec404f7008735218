"""Where a hook failed, what it feeds is unknown: no zero, no "ok"; all the rest is as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from places import EXPECTED

from profilemate.insight.figures import FIGURES, figures
from profilemate.insight.findings import find
from profilemate.insight.headline import headline
from profilemate.insight.metrics import families
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables import TABLES
from profilemate.schema.hooks import SUFFICIENT

KINDS = sorted({kind for table in TABLES.values() for kind in table.events})


def session(folder: Path, kind: str | None) -> SavedSession:
    """The golden session, in which a hook that sees events of a kind has failed."""
    shutil.copytree(EXPECTED, folder)
    file = folder / "metadata.json"
    facts = json.loads(file.read_text())
    if kind is not None:
        role = "worker" if kind in ("step", "graph.capture", "graph.replay") else "engine"
        (pid,) = [p["pid"] for p in facts["processes"] if role in p["role"]]
        why = f"the hook {SUFFICIENT[kind][0]}: failed 212 times (TypeError)"
        facts["unseen"] = [{"pid": pid, "kind": kind, "why": why}]
        file.write_text(json.dumps(facts))
    return SavedSession.open(folder)


def test_every_table_says_what_it_is_made_of() -> None:
    assert all(table.events for table in TABLES.values())
    assert set(KINDS) <= set(SUFFICIENT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_failed_makes_unknown_what_it_feeds(tmp_path: Path, kind: str) -> None:
    whole, less = session(tmp_path / "whole", None), session(tmp_path / "less", kind)
    before, after = figures(whole), figures(less)
    unknown = 0
    for name in FIGURES:
        asked: set[str] = set(FIGURES[name].reads)
        FIGURES[name].value(whole.noting(asked))
        fed = any(kind in TABLES[table].events for table in asked)
        if not fed:
            assert after[name] == before[name], name
            continue
        unknown += 1
        assert after[name].value is None, name
        assert "failed 212 times" in after[name].why
    assert unknown or kind in ("kv.cache", "kv.move")  # of which no figure is made


def test_the_headline_says_why_it_does_not_know(tmp_path: Path) -> None:
    whole, less = session(tmp_path / "whole", None), session(tmp_path / "less", "kv.lookup")
    before, after = ({line.label: line for line in headline(s)} for s in (whole, less))
    assert before["prefix hits"].figure == "26.5 %"
    assert after.pop("prefix hits").figure == "not known"
    assert "failed 212 times" in headline(less)[-1].text
    del before["prefix hits"]
    assert after == before


@pytest.mark.parametrize(
    ("kind", "rules"),
    [
        ("preempt", {"preemptions", "no-preemptions"}),
        ("kv.evict", {"kv-churn", "kv-evictions-late", "no-evictions"}),
        ("kv.lookup", {"prefix-cache-off", "prefix-cache-low", "prefix-cache-good"}),
    ],
)
def test_no_finding_judges_what_was_not_seen(tmp_path: Path, kind: str, rules: set[str]) -> None:
    whole, less = session(tmp_path / "whole", None), session(tmp_path / "less", kind)
    before, after = find(whole), find(less)
    gone = {f.rule for f in before.findings} - {f.rule for f in after.findings}
    assert gone
    assert {u.rule for u in after.unjudged} > {u.rule for u in before.unjudged}
    assert any("failed 212 times" in u.why for u in after.unjudged)
    assert not rules & {f.rule for f in after.findings}
    untouched = [f for f in before.findings if f.rule not in gone]
    assert [f for f in after.findings if f.rule not in gone] == untouched


def test_no_metric_is_exported_of_what_was_not_seen(tmp_path: Path) -> None:
    whole = {f.spec.name for f in families(session(tmp_path / "whole", None))}
    less = {f.spec.name for f in families(session(tmp_path / "less", "preempt"))}
    assert {name for name in whole - less if "preempt" in name}
    assert less < whole
