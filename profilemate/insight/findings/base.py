"""What a finding is, what a rule is, and how a session is judged.

A rule is data: what it asks, what it may find and when, where its limits come from, and a pure
function from a session to findings. Where the recording cannot tell, the function raises `NoData`
with the reason, and the rule is listed as unjudged: no data, no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from profilemate.insight.figures.base import missed
from profilemate.insight.findings.thresholds import Thresholds
from profilemate.insight.reading import NoData
from profilemate.parse.session.saved import SavedSession

Severity = Literal["critical", "warning", "info", "good"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info", "good")
"""Worst first, the order of findings."""

Evidence = Mapping[str, float | int | str | None]

BANDS = "profilemate's bands for vLLM, from its first release on"
"""Named by rules whose limits the project's first specification fixed."""
OURS = "profilemate's judgement: set it to what your service needs"
"""Named by rules whose limits nobody else gives."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict on one point, with what it rests on.

    Attributes:
        rule: Stable id, a key of the `verdicts` of a rule.
        severity: `critical`, `warning`, `info` or `good`.
        title: The verdict in one line.
        detail: The evidence in a sentence or two, with the figures.
        evidence: The figures; percentages end in `_pct`, other units in `_sec`, `_ms`.
        source: Where the limit comes from.
        flag: The vLLM flag to turn, if one helps.
        value: The value to try, where the data gives one.
        why: What turning the flag would do.
        files: The files of the session it was read from.
        rank: Folder of the further rank it is about, None for the lead rank and the whole.
    """

    rule: str
    severity: Severity
    title: str
    detail: str
    evidence: Evidence
    source: str
    flag: str | None = None
    value: str | None = None
    why: str | None = None
    files: tuple[str, ...] = ()
    rank: str | None = None


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A rule that could not be judged, and why."""

    rule: str
    why: str
    rank: str | None = None


@dataclass(frozen=True, slots=True)
class When:
    """One thing a rule may find: how bad it is, and when it is found."""

    severity: Severity
    when: str


Judge = Callable[[SavedSession, Thresholds], Sequence[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One question to a session.

    Attributes:
        name: Stable id of the question.
        area: `KV cache`, `CUDA graphs`, `Ranks` or `Recording`.
        question: What it asks, for people.
        doc: How the answer is worked out, exactly.
        verdicts: What it may find, by the `rule` of the finding.
        thresholds: Names of the thresholds it uses.
        source: Where its limits come from.
        limits: What the answer does not say.
        files: The files it reads.
        judge: Session and thresholds to findings; raises `NoData`.
        per_engine: Asked of every data-parallel engine, not of the session as a whole.
    """

    name: str
    area: str
    question: str
    doc: str
    verdicts: Mapping[str, When]
    thresholds: tuple[str, ...]
    source: str
    limits: str
    files: tuple[str, ...]
    judge: Judge
    per_engine: bool = True

    def finding(
        self,
        rule: str,
        title: str,
        detail: str,
        evidence: Evidence,
        *,
        severity: Severity | None = None,
        turn: tuple[str, str | None, str] | None = None,
    ) -> Finding:
        """A finding of this rule.

        Args:
            rule: A key of `verdicts`.
            title: The verdict.
            detail: The evidence in words.
            evidence: The figures.
            severity: Where it differs from the one in `verdicts`.
            turn: The flag, the value if there is one, and what it would do.
        """
        flag, value, why = turn or (None, None, None)
        return Finding(
            rule,
            severity or self.verdicts[rule].severity,
            title,
            detail,
            evidence,
            self.source,
            flag,
            value,
            why,
            self.files,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings on a session, worst first, and the rules that could not be judged."""

    findings: list[Finding] = field(default_factory=list)
    unjudged: list[Unjudged] = field(default_factory=list)

    def worst(self) -> Severity | None:
        """The severity of the first finding, None without any."""
        return self.findings[0].severity if self.findings else None

    def at_least(self, severity: Severity) -> list[Finding]:
        """The findings that are as bad as this, or worse."""
        bad = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return [f for f in self.findings if f.severity in bad]


def judge(session: SavedSession, rules: Sequence[Rule], thresholds: Thresholds) -> Verdict:
    """Ask all rules; see `profilemate.insight.findings.find`."""
    verdict = Verdict()
    engines: dict[str | None, SavedSession] = {None: session}
    engines |= {name: rank for name, rank in session.ranks().items() if _leads_engine(name)}
    for rank, part in engines.items():
        for rule in rules:
            if rank is not None and not rule.per_engine:
                continue
            asked: set[str] = set()
            try:
                found, why = rule.judge(part.noting(asked), thresholds), ""
            except NoData as reason:
                found, why = [], str(reason)
            why = missed(part, asked) or why
            if why:
                verdict.unjudged.append(Unjudged(rule.name, why, rank))
            else:
                verdict.findings.extend(replace(f, rank=rank) for f in found)
    verdict.findings.sort(key=lambda f: SEVERITIES.index(f.severity))  # stable: rules' own order
    return replace(verdict, findings=one_value_each(verdict.findings))


def one_value_each(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with one value for each flag: that of the first, the worst.

    A server has one value of a flag, and each finding that proposes one knows its own reason only.
    """
    first: dict[str, Finding] = {}
    found = []
    for finding in findings:
        if finding.flag is not None and finding.value is not None:
            chosen = first.setdefault(finding.flag, finding)
            if chosen.value != finding.value:
                detail = (
                    f"{finding.detail} What {finding.flag} could be for this is not proposed: "
                    f"{chosen.rule} comes first and proposes another value."
                )
                finding = replace(finding, detail=detail, flag=None, value=None, why=None)
        found.append(finding)
    return found


def _leads_engine(rank: str) -> bool:
    """The other ranks of an engine run the same batches: what they say is in ranks.csv."""
    return rank.endswith("_pp0_tp0")


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The object of `findings.json`, described in docs/findings.md."""
    return {
        "version": 1,
        "worst": verdict.worst(),
        "findings": [
            {
                "rule": f.rule,
                "severity": f.severity,
                "title": f.title,
                "detail": f.detail,
                "evidence": dict(f.evidence),
                "source": f.source,
                "flag": f.flag,
                "value": f.value,
                "why": f.why,
                "files": list(f.files),
                "rank": f.rank,
            }
            for f in verdict.findings
        ],
        "unjudged": [{"rule": u.rule, "why": u.why, "rank": u.rank} for u in verdict.unjudged],
    }
