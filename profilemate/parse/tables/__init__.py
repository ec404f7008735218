"""Tables: pure functions from a trace to a frame, one row in `TABLES` each.

Times stay integer ns and ratios stay unrounded in here; `Column` says how a writer spells them.
A new table is one new file (or a place in the file of its kin) and one new row here.

The standard files are about one process: a trace of several engines or ranks is cut with
`Trace.only` first. Where it is not, their rows are merged, nothing is lost, and counts add up.
"""

from __future__ import annotations

from profilemate.parse.tables import (
    cuda_graph_coverage,
    cuda_graph_latency,
    cuda_graph_steps,
    cuda_graphs,
    kv_cache,
    kv_events,
    kv_lifetimes,
    kv_requests,
    ranks,
)
from profilemate.parse.tables.base import Column, Spelling, Table

__all__ = ["TABLES", "Column", "Spelling", "Table"]

TABLES: dict[str, Table] = {
    table.name: table
    for module in (
        cuda_graphs,
        cuda_graph_latency,
        cuda_graph_steps,
        cuda_graph_coverage,
        kv_cache,
        kv_lifetimes,
        kv_events,
        kv_requests,
        ranks,
    )
    for table in module.TABLES
}
