"""The report page in a real Chromium: marks, tables, zoom, light, dark, print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_session import FOREIGN
from places import RECORDING
from report_sessions import Opened, browser, hostile, make, open_page, page_of, rows

from profilemate.insight.report.charts import CHARTS
from profilemate.parse.pipeline import parse_session

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real session without GPU, and a made-up one of three ranks with one; a page in each."""
    folder = tmp_path_factory.mktemp("sessions")
    found = {
        "bundled": parse_session([RECORDING], folder / "bundled").path,
        "made": make(folder / "made"),
    }
    for session in found.values():
        page_of(session, session / "report.html")
    return found


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    """A browser."""
    with browser(viewport={"width": 1280, "height": 900}) as opened:
        yield opened


@pytest.fixture(params=["bundled", "made"])
def opened(
    request: pytest.FixtureRequest, sessions: dict[str, Path], context: Any
) -> Iterator[Opened]:
    """Each page."""
    found = open_page(context, sessions[request.param] / "report.html")
    yield found
    found.page.close()


@pytest.fixture
def made(sessions: dict[str, Path], context: Any) -> Iterator[Opened]:
    """The page of the made-up session."""
    found = open_page(context, sessions["made"] / "report.html")
    yield found
    found.page.close()


def test_nothing_is_said_and_nothing_is_asked_for(opened: Opened) -> None:
    assert opened.said == []
    assert opened.asked == []


def test_every_chart_has_marks_or_says_why_not(opened: Opened) -> None:
    for name in CHARTS:
        article = opened.page.locator(f"#{name}")
        if article.get_attribute("class") == "chart empty":
            assert "Not drawn: " in article.inner_text()
            assert article.locator("svg").count() == 0
        else:
            marks = article.locator(".picture svg .mark-rect path, .picture svg .mark-line path")
            assert marks.count() + opened.marks(name, "point") > 0, name
            assert article.locator(".picture svg").get_attribute("aria-label") or article.locator(
                ".picture"
            ).get_attribute("aria-label"), "a text alternative"


def test_marks_are_as_many_as_the_data(sessions: dict[str, Path], made: Opened) -> None:
    session = sessions["made"]
    graphs = min(30, len(rows(session, "cuda_graph_usage.csv")))
    assert made.marks("cuda_graph_usage", "bar") == 3 * graphs
    assert made.marks("cuda_graph_replay_latency", "tick") == 3 * graphs
    assert made.marks("cuda_graph_replay_latency", "point") == 3 * graphs
    pairs = [r for r in rows(session, "cuda_graph_padding.csv") if r["runtime_mode"] != "NONE"]
    assert made.marks("cuda_graph_padding", "circle") == len(pairs)
    captured = {r["num_tokens"] for r in rows(session, "cuda_graph_captures.csv")}
    assert made.marks("cuda_graph_padding", "rule mark") == len(captured)
    assert made.marks("kv_cache_usage", "point") == len(rows(session, "kv_preemptions.csv"))
    evictions = made.data("kv_cache_usage")["data"]["evictions"]
    assert made.marks("kv_cache_usage", "bar") == len(evictions["n"])
    assert sum(evictions["n"]) == len(rows(session, "kv_cache_evictions.csv"))
    assert made.marks("ranks", "tick") == 2 * 3
    lives = made.data("kv_block_lifetimes")["data"]
    bars = len(lives["lifetime"]["n"]) + len(lives["idle"]["n"])
    assert made.marks("kv_block_lifetimes", "bar") == bars


def open_table(opened: Opened, chart: str) -> None:
    opened.page.locator(f"#{chart} summary").click()
    opened.page.wait_for_selector(f"#{chart} tbody tr")


def cells(opened: Opened, chart: str, column: int) -> list[str]:
    found = opened.page.locator(f"#{chart} tbody tr td:nth-child({column})").all_inner_texts()
    return [text.replace(",", "") for text in found]


def test_tables_sort(sessions: dict[str, Path], made: Opened) -> None:
    usage = rows(sessions["made"], "cuda_graph_usage.csv")
    open_table(made, "cuda_graph_usage")
    assert made.page.locator("#cuda_graph_usage tbody tr").count() == len(usage)
    heads = made.page.locator("#cuda_graph_usage th button")
    assert heads.all_inner_texts()[:2] == ["graph", "steps"]
    heads.nth(1).click()
    falling = [int(t) for t in cells(made, "cuda_graph_usage", 2)]
    assert falling == sorted((int(r["replay_count"]) for r in usage), reverse=True)
    assert (
        made.page.locator("#cuda_graph_usage th").nth(1).get_attribute("aria-sort") == "descending"
    )
    heads.nth(1).click()
    assert [int(t) for t in cells(made, "cuda_graph_usage", 2)] == falling[::-1]
    heads.nth(0).click()
    names = cells(made, "cuda_graph_usage", 1)
    full = [int(n.split()[1]) for n in names if n.startswith("FULL")]
    assert full == sorted(full), "numbers in names count as numbers"


def test_unknown_values_come_last_whichever_way(made: Opened) -> None:
    open_table(made, "ranks")
    head = made.page.locator("#ranks th button", has_text="evictions")
    place = 1 + made.page.locator("#ranks th").all_inner_texts().index("evictions")
    for _ in range(2):
        head.click()
        texts = cells(made, "ranks", place)
        assert texts[0].isdigit()
        assert texts[1:] == ["\u2013", "\u2013"]


def test_charts_over_time_zoom_together(made: Opened) -> None:
    page = made.page
    assert page.locator("#whole").is_disabled()
    box = page.locator("#kv_cache_usage .picture svg").bounding_box()
    assert box
    page.locator("#kv_cache_usage .picture").scroll_into_view_if_needed()
    box = page.locator("#kv_cache_usage .picture svg").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 80, steps=5)
    page.mouse.up()
    page.wait_for_function("!document.getElementById('whole').disabled")
    low, high = (float(page.locator(f"#{n}").input_value()) for n in ("from", "to"))
    assert 3 < low < high < 8
    for chart in ("kv_cache_usage", "kv_prefix_cache", "cuda_graph_coverage"):
        page.wait_for_function(
            """([name, low, high]) => {
                const texts = [...document.querySelectorAll(`#${name} [aria-label^=X-axis] text`)]
                    .map(t => Number(t.textContent)).filter(n => !isNaN(n));
                return texts.length && texts.every(n => low <= n && n <= high);
            }""",
            arg=[chart, low, high],
        )
    page.locator("#whole").click()
    page.wait_for_function("document.getElementById('whole').disabled")
    page.locator("#from").fill("2")
    page.locator("#to").fill("3")
    page.locator("#window button[type=submit]").click()
    page.wait_for_function("!document.getElementById('whole').disabled")
    assert made.said == []


def colour(opened: Opened, selector: str, what: str) -> tuple[int, ...]:
    text = opened.page.evaluate(
        "([s, w]) => getComputedStyle(document.querySelector(s))[w]", [selector, what]
    )
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


LINE = "#kv_cache_usage svg [aria-roledescription='line mark']"


def test_dark_by_the_system_and_by_the_button(sessions: dict[str, Path], made: Opened) -> None:
    page = made.page
    light, light_line = colour(made, "body", "backgroundColor"), colour(made, LINE, "stroke")
    assert min(light) > 200
    page.emulate_media(color_scheme="dark")
    dark, dark_line = colour(made, "body", "backgroundColor"), colour(made, LINE, "stroke")
    assert max(dark) < 60
    assert dark_line != light_line, "charts turn dark without being drawn anew"
    button = page.locator("#theme")
    button.click()
    assert (button.inner_text(), colour(made, "body", "backgroundColor")) == ("Theme: light", light)
    page.emulate_media(color_scheme="light")
    button.click()
    assert (button.inner_text(), colour(made, "body", "backgroundColor")) == ("Theme: dark", dark)
    page.emulate_media(media="print")
    assert colour(made, "body", "backgroundColor") == (255, 255, 255), "print is light"
    assert colour(made, LINE, "stroke") == light_line
    assert not page.locator("#theme").is_visible()
    assert page.locator("#kv_cache_usage .files").is_visible()
    page.emulate_media(media="screen")
    button.click()
    assert button.inner_text() == "Theme: auto"


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """WCAG's contrast ratio."""

    def luminance(rgb: tuple[int, ...]) -> float:
        linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_texts_can_be_read_in_light_and_dark(made: Opened) -> None:
    for scheme in ("light", "dark"):
        made.page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        card = colour(made, ".chart", "backgroundColor")
        for text in (".says", ".question", ".notes", ".files a", "#kv_cache_usage svg text"):
            what = "fill" if "svg" in text else "color"
            assert contrast(colour(made, text, what), card) >= 4.5, (scheme, text)
        assert contrast(colour(made, LINE, "stroke"), card) >= 3
    made.page.emulate_media(color_scheme="light")


@pytest.mark.parametrize("width", [1280, 800, 420])
def test_nothing_overflows_at(width: int, made: Opened) -> None:
    made.page.set_viewport_size({"width": width, "height": 900})
    made.page.wait_for_timeout(1500)  # charts are drawn anew
    assert made.page.evaluate("document.documentElement.scrollWidth") <= width
    wide = made.page.evaluate(
        "[...document.querySelectorAll('.picture')].filter(p => p.getBoundingClientRect().right + 1"
        " < p.querySelector('svg').getBoundingClientRect().right).map(p => p.dataset.chart)"
    )
    assert wide == []
    made.page.set_viewport_size({"width": 1280, "height": 900})


def test_it_prints(made: Opened) -> None:
    data = made.page.pdf(format="A4")
    assert data.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 15


def test_foreign_texts_do_nothing(sessions: dict[str, Path], context: Any, tmp_path: Path) -> None:
    session = hostile(sessions["made"], tmp_path / "session")
    opened = open_page(context, page_of(session, tmp_path / "r.html"))
    dialogs: list[str] = []
    opened.page.on("dialog", lambda d: dialogs.append(d.message))
    open_table(opened, "cuda_graph_usage")
    assert any(FOREIGN in t for t in cells(opened, "cuda_graph_usage", 1))
    assert opened.page.locator("h1").inner_text() == FOREIGN
    assert (opened.said, opened.asked, dialogs) == ([], [], [])
    opened.page.close()


def test_the_policy_stops_what_is_not_the_pages(made: Opened) -> None:
    made.page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.bad = 1';"
        " document.body.append(s); }"
    )
    assert made.page.evaluate("window.bad") is None
    assert "Content Security Policy" in " ".join(made.said)
