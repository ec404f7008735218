"""The page of a comparison in a real Chromium: marks, the table, light, dark, print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from compare_sessions import two
from report_sessions import Opened, browser, open_page
from saved_build import step, write_session

from profilemate.insight.compare import Comparison, compare
from profilemate.insight.compare.conditions import parse_condition
from profilemate.insight.report.compare_page import write_comparison

pytestmark = pytest.mark.real

CHART = "compare_graphs"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two sessions, compared."""
    return compare(*two(tmp_path_factory.mktemp("two")))


@pytest.fixture(scope="module")
def opened(found: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Their page."""
    out: Path = tmp_path_factory.mktemp("page") / "compare.html"
    write_comparison(found, [parse_condition("graphs_slower>0")], out)
    with browser(viewport={"width": 1280, "height": 900}) as context:
        yield open_page(context, out)


def test_marks_are_as_many_as_the_graphs(found: Comparison, opened: Opened) -> None:
    rows = found.graphs.rows
    assert opened.marks(CHART, "circle") == sum(r.p50[0] is not None for r in rows)
    assert opened.marks(CHART, "point") == sum(r.p50[1] is not None for r in rows)
    common = sum(r.change is not None for r in rows)
    assert opened.marks(CHART, "rule mark") == opened.marks(CHART, "bar") == common
    assert (opened.said, opened.asked) == ([], [])


def test_no_common_graph_is_no_trouble(opened: Opened, tmp_path: Path) -> None:
    a, b = (
        write_session(
            tmp_path / name,
            {"cuda_graph_steps": [step(i, tokens=n, graph_gpu_ms=2.0) for i in range(9)]},
        )
        for name, n in (("a", 8), ("b", 16))
    )
    out = write_comparison(compare(a, b), [], tmp_path / "c.html")
    alone = open_page(opened.page.context, out)
    assert (alone.said, alone.asked) == ([], [])
    assert [alone.marks(CHART, kind) for kind in ("circle", "point", "bar")] == [1, 1, 0]
    alone.page.close()


def cells(opened: Opened, column: int) -> list[str]:
    return opened.page.locator(f"#{CHART} tbody tr td:nth-child({column})").all_inner_texts()


def test_the_table_is_open_and_sorts(found: Comparison, opened: Opened) -> None:
    assert len(cells(opened, 1)) == len(found.graphs.rows)
    heads = opened.page.locator(f"#{CHART} th button")
    names = heads.all_inner_texts()
    place = names.index("change (%)")
    for turn in (True, False):
        heads.nth(place).click()
        shown = [float(t) for t in cells(opened, place + 1) if t != "\u2013"]
        told = sorted((r.change for r in found.graphs.rows if r.change is not None), reverse=turn)
        assert shown == pytest.approx([100 * c for c in told], abs=0.051)
    place = names.index("verdict")
    heads.nth(place).click()
    assert cells(opened, place + 1)[0] == "faster"
    assert opened.said == []


def colours(opened: Opened) -> dict[str, str]:
    found: dict[str, str] = opened.page.evaluate(
        """() => Object.fromEntries([
            ["page", "body", "backgroundColor"], ["worse", "td.worse", "color"],
            ["slower", "td.slower", "color"], ["better", "td.better", "color"],
            ["noise", "td.noise", "color"], ["text", "td.within", "color"],
            ["ring", "#compare_graphs svg [aria-roledescription=circle]", "stroke"],
        ].map(([name, selector, what]) =>
            [name, getComputedStyle(document.querySelector(selector))[what]]))"""
    )
    return found


def test_dark_and_print(opened: Opened) -> None:
    page = opened.page
    page.emulate_media(color_scheme="light")
    light = colours(opened)
    assert light["worse"] == light["slower"] != light["better"]
    assert light["noise"] == light["text"], "what is within noise has no colour"
    page.emulate_media(color_scheme="dark")
    dark = colours(opened)
    assert all(dark[name] != light[name] for name in light)
    page.emulate_media(media="print", color_scheme="dark")
    assert colours(opened)["page"] == "rgb(255, 255, 255)"
    assert page.locator(f"#{CHART} tbody tr").first.is_visible(), "the graphs are printed"
    page.emulate_media(media="screen", color_scheme="light")


@pytest.mark.parametrize("width", [1280, 800, 420])
def test_nothing_overflows_at(width: int, opened: Opened) -> None:
    opened.page.set_viewport_size({"width": width, "height": 900})
    opened.page.wait_for_timeout(1000)  # charts are drawn anew
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.page.set_viewport_size({"width": 1280, "height": 900})
