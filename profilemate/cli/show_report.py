"""Figures, findings and thresholds on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from profilemate.cli.show import facts, heading, line, out, text, wrapped
from profilemate.insight.findings import THRESHOLDS, Finding, Severity, Unjudged, Verdict
from profilemate.insight.headline import Line
from profilemate.parse.session.saved import SavedSession

_WORDS: dict[Severity, tuple[str, str]] = {
    "critical": ("critical", "bold red"),
    "warning": ("warning", "bold yellow"),
    "info": ("note", "bold cyan"),
    "good": ("ok", "bold green"),
}
_INDENT = 10


def verdict(
    session: SavedSession, figures: Sequence[Line], found: Verdict, *, details: bool
) -> None:
    """Headline figures, findings worst first, and what could not be judged.

    Args:
        session: The session.
        figures: Its headline figures.
        found: Its findings.
        details: The evidence of what is good too.
    """
    console = out()
    name = session.metadata.session_id or session.path.name
    for words in wrapped(name, console.width):
        line(words)
    facts(console, [(f.label, f.text) for f in figures])
    heading("Findings")
    for finding in found.findings:
        _finding(console, finding, brief=finding.severity == "good" and not details)
    if not found.findings:
        line("Nothing could be judged.")
    if found.unjudged:
        heading("Not judged")
        facts(console, _reasons(found.unjudged))
    line()
    line(_sum(found))


def _finding(console: Console, finding: Finding, *, brief: bool) -> None:
    word, style = _WORDS[finding.severity]
    title = finding.title if finding.rank is None else f"{finding.rank}: {finding.title}"
    first, *rest = wrapped(title, console.width - _INDENT)
    bold = "" if brief else "bold"
    console.print(Text.assemble((word.ljust(_INDENT), style), text(first, bold)))
    for words in rest:
        console.print(text(" " * _INDENT + words, bold))
    if brief:
        return
    _indented(console, finding.detail)
    if finding.flag:
        _indented(console, f"Turn {finding.flag}: {finding.why}.")
        if finding.value:
            # On lines of its own, uncut, so that it can be copied.
            value = f"'{finding.value}'" if " " in finding.value else finding.value
            _indented(console, f"{finding.flag} {value}", style="cyan")


def _indented(console: Console, value: str, style: str = "") -> None:
    for part in wrapped(value, console.width - _INDENT):
        console.print(text(" " * _INDENT + part, style))


def _reasons(unjudged: Sequence[Unjudged]) -> list[tuple[str, str]]:
    """Rules by their reason: the same one is said once, and further engines only counted."""
    by_reason: dict[str, list[str]] = {}
    further: dict[str, int] = {}
    for rule in unjudged:
        if rule.rank is None:
            by_reason.setdefault(rule.why, []).append(rule.rule)
        else:
            further[rule.rank] = further.get(rule.rank, 0) + 1
    rows = [("-", f"{', '.join(names)}: {why}") for why, names in by_reason.items()]
    return rows + [("-", f"{rank}: {n} more, named by --json") for rank, n in further.items()]


def _sum(found: Verdict) -> str:
    counts = {s: sum(f.severity == s for f in found.findings) for s in _WORDS}
    parts = [f"{n} {_WORDS[s][0]}" for s, n in counts.items() if n]
    return ", ".join([*parts, f"{len(found.unjudged)} not judged"])


def thresholds() -> None:
    """Every threshold with its default."""
    rows = [(f"{t.name}={t.default:g}", t.doc) for t in THRESHOLDS.values()]
    facts(out(), rows, style="")
