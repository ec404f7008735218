"""The charts of the report, in the order of the page. A new one is one file and one row here."""

from __future__ import annotations

from profilemate.insight.report.base import Chart
from profilemate.insight.report.charts import (
    block_lifetimes,
    coverage,
    graph_latency,
    graph_usage,
    kv_usage,
    padding,
    prefix_cache,
    ranks,
)

__all__ = ["CHARTS", "SECTIONS"]

SECTIONS: dict[str, tuple[Chart, ...]] = {
    "KV cache": (kv_usage.CHART, prefix_cache.CHART, block_lifetimes.CHART),
    "CUDA graphs": (coverage.CHART, graph_usage.CHART, graph_latency.CHART, padding.CHART),
    "Ranks": (ranks.CHART,),
}

CHARTS: dict[str, Chart] = {chart.name: chart for charts in SECTIONS.values() for chart in charts}
