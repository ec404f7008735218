"""What a session says, as metrics in Prometheus' sense: families of labelled values.

Made from the session directory alone. What was not recorded is no metric; a 0 is a counted 0. Names
and labels follow Prometheus' conventions (base units, `_total` for counters). Every sample has
the session's id as label `session`, so that files of several sessions can stand side by side; what
belongs to a rank has its name as label `rank`. None has a time: the run is over, and Prometheus
rejects old samples.
"""

from __future__ import annotations

from profilemate.insight.figures.base import rank_name
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
    for part in (session, *session.ranks().values()):
        of_rank = found.labelled(rank=rank_name(part))
        graphs.collect(of_rank, part)
        kv.collect(of_rank, part)
    return found.families()
