"""The report page: one file that shows a session, offline.

Charts are Vega-Lite specifications, drawn by Vega in the page and by vl-convert as pictures. What
was weighed (sizes as packaged in November 2026, minified, what a page has to carry):

* vl-convert: 0.9 MB of script (0.3 MB zipped), from its wheel, without network; BSD-3. Draws SVG:
  sharp in print, marks are elements with descriptions that a screen reader and a test can find.
  Colours can be CSS variables. Works under a policy without eval. The same specification becomes a
  PNG in-process in 0.4 s. Price: a wheel of 34 MB, so it is an extra.
* Bokeh: 1.6 MB with its tables, from its wheel; draws on canvas (nothing to find, blurred in
  print), pictures need a browser.
* Plotly: 4.8 MB, over half of the page's 8 MB; pictures need a browser (kaleido).
* uPlot, ECharts, Observable Plot: no package on PyPI that is kept and carries them; they would have
  to be copied into this repository, and pictures would need a browser.
* Matplotlib's SVG: no zoom, and 8,000 points a line are drawn again for each theme.
"""

from __future__ import annotations

from pathlib import Path

from profilemate.insight.report import shell
from profilemate.insight.report.base import Chart, Drawn, Nothing
from profilemate.insight.report.charts import CHARTS, SECTIONS
from profilemate.insight.report.page import Judged, page
from profilemate.insight.report.pictures import write_pictures
from profilemate.insight.report.source import Source
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.session.saved import SavedSession

__all__ = ["CHARTS", "SECTIONS", "draw", "draw_all", "write_page", "write_pictures"]


def draw_all(session: SavedSession, progress: Progress = no_progress) -> dict[str, list[Drawn]]:
    """Every chart of a session, by section.

    Raises:
        InputError: A table cannot be read.
    """
    source = Source(session)
    done = 0
    found: dict[str, list[Drawn]] = {}
    for section, charts in SECTIONS.items():
        found[section] = []
        for chart in charts:
            progress("drawing charts", done, len(CHARTS))
            found[section].append(draw(chart, source))
            done += 1
    return found


def draw(chart: Chart, source: Source) -> Drawn:
    """One chart of a session, or why there is none."""
    if why := source.why_unknown(chart.needs):
        return Drawn(chart, why=why)
    try:
        return Drawn(chart, chart.draw(source))
    except Nothing as nothing:
        return Drawn(chart, why=str(nothing))


def write_page(
    session: SavedSession, out: Path, drawn: dict[str, list[Drawn]], verdict: Judged
) -> Path:
    """Write the page; an old one is replaced whole or not at all.

    Raises:
        OutputError: It cannot be written.
        ToolError: The extra `report` is not installed.
    """
    return shell.write(page(Source(session), drawn, verdict, out.parent), out, "report")
