"""A comparison on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from profilemate.cli.show import facts, line, out
from profilemate.parse.compare import (
    DURATIONS,
    FALSE_ALARMS,
    METRICS,
    Comparison,
    Condition,
    GraphRow,
    MetricRow,
)

_FEW = 12  # graphs shown without --all
_STYLES = {"slower": "bold red", "faster": "bold green"}


def comparison(
    found: Comparison, conditions: Sequence[Condition], failed: Sequence[Condition], *, every: bool
) -> None:
    """Caveats, figures, graphs and conditions.

    Args:
        found: The comparison.
        conditions: What was asked with --fail-on.
        failed: Those that hold.
        every: Show all graphs.
    """
    console = out()
    facts(console, [("A", str(found.a.path)), ("B", str(found.b.path))])
    if found.caveats:
        line("")
        facts(console, [("note:", text) for text in found.caveats], style="yellow")
    table = _table("", "A", "B", "change", "metric")
    for row in found.metrics:
        table.add_row(*_metric(row))
    line("")
    _print(table)
    if found.graphs.rows:
        _graphs(found, every=every)
    if conditions:
        console.print("\n[bold]Conditions[/]")
        for condition in conditions:
            bad = condition in failed
            word = ("fails  ", "bold red") if bad else ("passes ", "bold green")
            console.print(Text.assemble(word, condition.text))


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
    for text in capture.get().splitlines():
        console.print(Text.from_ansi(text.rstrip()))


def _metric(row: MetricRow) -> tuple[str, str, str, Text, str]:
    unit = row.metric.unit
    title = f"{row.metric.title}, {unit}" if unit else row.metric.title
    return title, _number(row.a, unit), _number(row.b, unit), _change(row), row.metric.name


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    digits = {"ms": 3, "%": 2, "/s": 1, "s": 3}.get(unit, 0)
    return f"{value:,.{digits}f}"


def _change(row: MetricRow) -> Text:
    change = row.change
    if change is None:
        return Text("-")
    if row.metric.unit == "%":
        text = f"{change:+.2f}"
    elif row.relative is not None:
        text = f"{100 * row.relative:+.1f} %"
    else:
        text = f"{change:+,.0f}" if change else "0"
    if float(text.split()[0].replace(",", "")) == 0 or not row.metric.better:
        return Text(text)
    worse = (change > 0) == (row.metric.better == "lower")
    return Text(text, style="red" if worse else "green")


def _graphs(found: Comparison, *, every: bool) -> None:
    console, rows = out(), found.graphs.rows
    shown = rows if every else rows[:_FEW]
    console.print("\n[bold]Graphs[/]")
    facts(
        console,
        [
            (
                "compared",
                f"{DURATIONS[found.graphs.duration]}, ms; slower and faster are more than noise "
                f"(q < {FALSE_ALARMS:g})",
            )
        ],
    )
    test = found.graphs.test
    if test is not None:
        chance = (
            f"{100 * test.effect:.1f} %" if 0.001 < test.effect < 0.999 else f"{test.effect:.0%}"
        )
        verdict = "more than noise" if test.p < FALSE_ALARMS else "within noise"
        text = f"a step of B is longer than one of A with {chance}: {verdict} (p {_p(test.p)})"
        facts(console, [("all graphs", text)])
    table = _table("graph", "steps A", "steps B", "p50 A", "p50 B", "change", "")
    for row in shown:
        table.add_row(*_graph(row))
    line("")
    _print(table)
    if len(shown) < len(rows):
        line(f"{len(rows) - len(shown)} more graphs with fewer steps: --all shows them")


def _graph(row: GraphRow) -> tuple[str | Text, ...]:
    change = "-" if row.change is None else f"{100 * row.change:+.1f} %"
    said = {"few": "too few", "same": "noise"}.get(row.outcome, row.outcome)
    return (
        row.graph,
        f"{row.steps[0]:,}",
        f"{row.steps[1]:,}",
        _number(row.p50[0], "ms"),
        _number(row.p50[1], "ms"),
        change,
        Text(said, style=_STYLES.get(row.outcome, "")),
    )


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def metrics() -> None:
    """Every metric with its unit and definition."""
    rows = [(m.name, f"{m.doc}" + (f" [{m.unit}]" if m.unit else "")) for m in METRICS.values()]
    facts(out(), rows, style="")
