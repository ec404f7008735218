"""Every figure of a session that a person sees, once: terminal, page, metrics take it from here.

A new one is one row in the file of its kin. What belongs to a single graph or a single rank is in
the tables, and what only two sessions have is in `compare`.
"""

from __future__ import annotations

from profilemate.insight.figures import graphs, kv, recorded, steps
from profilemate.insight.figures.base import Figure, Value
from profilemate.parse.session.saved import SavedSession

__all__ = ["FIGURES", "Figure", "Value", "figures"]

FIGURES: dict[str, Figure] = {
    figure.name: figure for module in (recorded, steps, graphs, kv) for figure in module.FIGURES
}


def figures(session: SavedSession) -> dict[str, Value]:
    """All figures of a session by their names, None with a reason where it cannot tell.

    Raises:
        InputError: A table of the session cannot be read.
    """
    return {name: figure.value(session) for name, figure in FIGURES.items()}
