"""No figure is defined twice: the sources are searched for a second one of those that were."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from places import ROOT

from profilemate.insight.figures import FIGURES, graphs, kv, recorded, steps

PACKAGE = ROOT / "profilemate"
FILES = {
    file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
    for file in sorted(PACKAGE.rglob("*.py"))
}
AFTER_PARSE = {name: tree for name, tree in FILES.items() if name.startswith(("insight/", "cli/"))}


def words(tree: ast.AST) -> Iterator[str]:
    """Text constants; a docstring is a whole sentence and equals no name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def places(trees: dict[str, ast.Module], text: str) -> set[str]:
    """Files in which an expression, spelled as Python, matches."""
    pattern = re.compile(text)
    nodes = (ast.BinOp, ast.Compare, ast.Call)
    return {
        name
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, nodes) and pattern.search(ast.unparse(node))
    }


@pytest.mark.parametrize("mode", ["FULL", "PIECEWISE", "NONE"])
def test_modes_are_named_in_the_schema_alone(mode: str) -> None:
    assert {name for name, tree in FILES.items() if mode in words(tree)} == {"schema/modes.py"}


@pytest.mark.parametrize(
    ("word", "homes"),
    [
        ("dummy", {"insight/figures/steps.py"}),  # which steps count
        ("running_queries", set()),  # the hit rate is of the look-ups themselves
        ("running_hits", set()),
        ("Peak usage", set()),  # rounded: it is worked out of the two below
        ("Peak blocks used", {"insight/figures/kv.py"}),
        ("Total blocks available", {"insight/figures/kv.py"}),
        ("gpu_graph_share", {"insight/figures/steps.py", "insight/metrics/graphs.py"}),
        ("step_share", {"insight/metrics/graphs.py"}),  # of all steps, a row for each mode
        ("token_share", {"insight/metrics/graphs.py"}),
        ("padding_share", {"insight/metrics/graphs.py"}),
        ("graphs_replayed", {"insight/figures/graphs.py", "insight/metrics/graphs.py"}),
        ("kernel_time_us", {"insight/metrics/run.py"}),
    ],
)
def test_what_figures_are_made_of_is_read_in_one_place(word: str, homes: set[str]) -> None:
    found = {name for name, tree in AFTER_PARSE.items() if word in words(tree)}
    assert found == homes


@pytest.mark.parametrize(
    ("expression", "homes"),
    [
        # The prefix hit rate: found, of what was asked for.
        (r"\b(hit|hits|found|hit_tokens)\b[^/(),]* / [^/(),]*\b(asked|queries|total)\b", set()),
        # Counts of events: rows of their tables.
        (r"^len\(.*kv_(cache_evictions|preemptions)", set()),
        # The padding share; but for that of a list of sizes which nobody has run yet, and for a
        # graph's part of all padding.
        (
            r"\bpadding / ",
            {
                "insight/figures/graphs.py",
                "insight/findings/cuda_graph_padding.py",
                "insight/report/charts/graph_usage.py",
            },
        ),
        # A step that counts.
        (r"unpadded_tokens.* (>|==|!=) 0", set()),
        # A mode that is a graph.
        (r"\.isin\(.*(EAGER|FULL|PIECEWISE|GRAPH_MODES)", set()),
        # A median that is nobody's value.
        (r"inverted_cdf", set()),
    ],
)
def test_no_second_formula(expression: str, homes: set[str]) -> None:
    assert places(AFTER_PARSE, expression) == homes


def test_the_search_sees_what_it_searches_for() -> None:
    for old, expression in (
        ("rate = 100 * hits / asked", r"\b(hit|hits)\b[^/(),]* / [^/(),]*\basked\b"),
        ("n = len(session.table('kv_preemptions'))", r"^len\(.*kv_(cache_evictions|preemptions)"),
        ("real = floats(frame['unpadded_tokens']) > 0", r"unpadded_tokens.* (>|==|!=) 0"),
        ("on = np.isin(mode, [FULL, PIECEWISE])", r"\.isin\(.*(EAGER|FULL|PIECEWISE)"),
    ):
        assert places({"old": ast.parse(old)}, expression) == {"old"}


def test_every_figure_has_a_name_a_definition_and_one_home() -> None:
    rows = [f for module in (recorded, steps, graphs, kv) for f in module.FIGURES]
    assert len({f.name for f in rows}) == len(rows) == len(FIGURES)
    assert len({f.doc for f in rows}) == len(rows)
    for figure in rows:
        assert figure.doc.endswith("."), figure.name
        assert figure.doc.count(". ") == 0, f"{figure.name}: one sentence"
        assert figure.unit in ("", "%", "ms", "s", "/s"), figure.name
