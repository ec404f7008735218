"""What a session says, as metrics in Prometheus' sense: families of labelled values.

Made from the session directory alone. What was not recorded is no metric; a 0 is a counted 0. Names
and labels follow Prometheus' conventions (base units, `_total` for counters). Every sample has
the session's id as label `session`, so that files of several sessions can stand side by side; what
belongs to a rank has its name as label `rank`. None has a time: the run is over, and Prometheus
rejects old samples.
"""

from __future__ import annotations

from profilemate.insight.metrics import graphs, kv, run
from profilemate.insight.metrics.family import Collector, Family, Spec
from profilemate.parse.session.saved import SavedSession

__all__ = ["SPECS", "Family", "Spec", "families"]

SPECS = (*run.SPECS, *graphs.SPECS, *kv.SPECS)


def families(session: SavedSession) -> list[Family]:
    """All metric families of a session and its ranks that have a sample, each with its samples.

    Raises:
        InputError: A table of the session cannot be read.
    """
    found = Collector({"session": session.metadata.session_id or session.path.name})
    run.collect(found, session)
    for rank, part in {lead_rank(session): session, **session.ranks()}.items():
        of_rank = found.labelled(rank=rank)
        graphs.collect(of_rank, part, run.Facts(session, rank))
        kv.collect(of_rank, part, run.Facts(session, rank))
    return found.families()


def lead_rank(session: SavedSession) -> str:
    """Name of the rank whose tables lie in the session directory itself."""
    for process in session.metadata.processes:
        if process.rank:
            return process.rank
    return "dp0_pp0_tp0"
