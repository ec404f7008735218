"""Public API for notebooks and scripts: sessions, their tables, figures and comparisons.

    import profilemate

    session = profilemate.open("session")
    session.tables["kv_block_lifetimes"]        # a pandas frame
    profilemate.figures(session)["kv_peak_pct"].value

The names are those of `profilemate` itself and are loaded when they are first asked for: `import
profilemate` runs inside vLLM, and costs nothing there. See docs/python.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from profilemate.insight.compare import Comparison, compare
from profilemate.insight.figures import Value
from profilemate.insight.figures import figures as figures_of
from profilemate.parse.pipeline import parse_session
from profilemate.parse.session.saved import SavedSession

__all__ = ["Session", "compare_sessions", "figures", "open", "parse_recordings"]

Session = SavedSession
Place = str | PathLike[str]


def open(session: Place) -> Session:
    """Open a session directory.

    Args:
        session: What `profilemate parse` wrote.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    return SavedSession.open(Path(session))


def parse_recordings(
    recordings: Sequence[Place], out: Place | None = None, *, force: bool = False
) -> Session:
    """Rebuild the tables of a run from its recordings, as `profilemate parse` does.

    Args:
        recordings: Recordings of one run, or directories that hold some.
        out: The session directory; `session_<start of the recording>` here if not given.
        force: Replace a session that is there already.

    Raises:
        InputError: A recording cannot be read.
        OutputError: The session cannot be written; what was there before is untouched.
        ToolError: A program that is needed is missing or failed.
    """
    places = [Path(one) for one in recordings]
    written = parse_session(places, None if out is None else Path(out), force=force)
    return SavedSession.open(written.path)


def figures(session: Session) -> dict[str, Value]:
    """Every figure of a session by its name: `value`, None where it is not known, and `why`.

    `insight.figures.FIGURES` has the unit and the definition of each.

    Raises:
        InputError: A table of the session cannot be read.
    """
    return figures_of(session)


def compare_sessions(a: Session, b: Session) -> Comparison:
    """Compare two sessions, as `profilemate compare` does.

    Args:
        a: The session before.
        b: The session after.

    Raises:
        InputError: A table cannot be read.
    """
    return compare(a, b)
