"""A comparison on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from profilemate.cli.show import facts, heading, line, out, row_of, text
from profilemate.insight.compare import (
    DURATIONS,
    FALSE_ALARMS,
    METRICS,
    Comparison,
    Condition,
    GraphRow,
    MetricRow,
    spelled,
)
from profilemate.insight.figures.base import spell

_FEW = 12  # graphs shown without --all
_STYLES = {"slower": "bold red", "faster": "bold green"}


def comparison(found: Comparison, *, every: bool) -> None:
    """Caveats, figures, graphs; `every` shows all of these."""
    console = out()
    facts(console, [("A", str(found.a.path)), ("B", str(found.b.path))])
    if found.caveats:
        line()
        facts(console, [("note:", caveat) for caveat in found.caveats], style="yellow")
    table = _table("", "A", "B", "change", "metric")
    for row in found.metrics:
        table.add_row(*row_of(*_metric(row)))
    line()
    _print(table)
    if found.graphs.rows:
        _graphs(found, every=every)


def outcomes(conditions: Sequence[Condition], failed: Sequence[Condition]) -> None:
    """What was asked with --fail-on, and which of it holds."""
    console = out()
    if conditions:
        heading("Conditions")
    for condition in conditions:
        word = ("fails   ", "bold red") if condition in failed else ("passes  ", "bold green")
        console.print(Text.assemble(word, text(condition.text)))


def _table(first: str, *others: str) -> Table:
    """Numbers are never cut or wrapped; the first column takes what is left, in several lines."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others[:-1]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(others[-1], no_wrap=True)
    return table


def _print(table: Table) -> None:
    console = out()
    with console.capture() as capture:
        console.print(table)
    for drawn in capture.get().splitlines():
        console.print(Text.from_ansi(drawn.rstrip()))


def _metric(row: MetricRow) -> tuple[str, str, str, Text, str]:
    unit = row.metric.unit
    return (
        spelled.title(row.metric),
        spell(row.a, unit),
        spell(row.b, unit),
        _change(row),
        row.metric.name,
    )


def _change(row: MetricRow) -> Text:
    change, tone = spelled.change(row)
    return text(change, {"worse": "red", "better": "green"}.get(tone, ""))


def _graphs(found: Comparison, *, every: bool) -> None:
    console, rows = out(), found.graphs.rows
    shown = rows if every else rows[:_FEW]
    heading("Graphs")
    what = f"{DURATIONS[found.graphs.duration]}, ms"
    said = [("compared", f"{what}; slower and faster are more than noise (q < {FALSE_ALARMS:g})")]
    together = spelled.all_graphs(found.graphs)
    if together:
        said.append(("all graphs", together))
    facts(console, said)
    table = _table("graph", "steps A", "steps B", "p50 A", "p50 B", "change", "")
    for row in shown:
        table.add_row(*row_of(*_graph(row)))
    line()
    _print(table)
    if len(shown) < len(rows):
        line(f"{len(rows) - len(shown)} more graphs with fewer steps: --all shows them")


def _graph(row: GraphRow) -> tuple[str | Text, ...]:
    return (
        row.graph,
        f"{row.steps[0]:,}",
        f"{row.steps[1]:,}",
        spell(row.p50[0], "ms"),
        spell(row.p50[1], "ms"),
        spelled.relative(row.change),
        text(spelled.verdict(row.outcome), _STYLES.get(row.outcome, "")),
    )


def metrics() -> None:
    """Every metric with its unit and definition."""
    rows = [(m.name, f"{m.doc}" + (f" [{m.unit}]" if m.unit else "")) for m in METRICS.values()]
    facts(out(), rows, style="")
