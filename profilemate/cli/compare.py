"""`profilemate compare`: two sessions side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profilemate.cli import options, show
from profilemate.cli.examples import examples

EXAMPLES = examples(
    "profilemate compare before after",
    "profilemate compare before after --fail-on 'replay_p50>5%' \\",
    "    --fail-on 'graphs_slower>0' --fail-on 'padding_pct>+2'",
    "profilemate compare before after -o compare.html  # one page, offline",
    "profilemate compare before after --json | jq .metrics.replay_p50",
    "profilemate compare --metrics        # what --fail-on knows",
)


def _list_metrics(value: bool) -> None:
    if value:
        from profilemate.cli.show_compare import metrics

        metrics()
        raise typer.Exit


FailOn = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-on",
        metavar="CONDITION",
        help="Exit with 1 if it holds: NAME>N or NAME<N. N% is the change of B relative to A, "
        "+N or -N the change in the metric's unit, N is B itself. May be repeated.",
    ),
]
Page = Annotated[
    Path | None,
    options.output("FILE.html", "Write the comparison as one page, with a chart and tables."),
]


def compare(
    a: Annotated[Path, options.argument("A", "The session before.")],
    b: Annotated[Path, options.argument("B", "The session after.")],
    fail_on: FailOn = None,
    details: Annotated[bool, typer.Option("--all", "-a", help="Show every graph.")] = False,
    as_json: Annotated[bool, options.json("the comparison as JSON")] = False,
    page: Page = None,
    metrics: Annotated[
        bool,
        typer.Option("--metrics", callback=_list_metrics, is_eager=True, help="List the metrics."),
    ] = False,
) -> None:
    """Compare two sessions: figures, and each graph's latency.

    A graph is called slower or faster where its steps differ by more than
    noise: a rank test that allows for steps depending on their neighbours,
    corrected for the number of graphs. Two runs of the same thing differ, too:
    compare those first. With -o the same goes into one page; that needs
    the extra `report`.
    """
    from profilemate.cli.show_compare import comparison, outcomes
    from profilemate.insight.compare import as_json as compare_json
    from profilemate.insight.compare import compare as compare_
    from profilemate.insight.compare import parse_condition
    from profilemate.parse.session.saved import SavedSession

    conditions = [parse_condition(text) for text in fail_on or ()]
    before, after = SavedSession.open(a), SavedSession.open(b)
    with show.progress(as_json) as progress:
        progress("comparing", 0, None)
        found = compare_(before, after)
    if not as_json:
        comparison(found, every=details)
    if page is not None:  # before the conditions: the page says which cannot be judged
        from profilemate.insight.report.compare_page import write_comparison

        write_comparison(found, conditions, page)
    failed = found.check(conditions)  # after the tables: what cannot be judged is an error
    if as_json:
        show.as_json(compare_json(found, failed))
    else:
        outcomes(conditions, failed)
        if page is not None:
            show.line(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB)")
    if failed:
        raise typer.Exit(1)
