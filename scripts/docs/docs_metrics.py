"""Write docs/metrics.md from the metrics themselves; a test compares the two."""

from __future__ import annotations

from pathlib import Path

from profilemate.insight.metrics import SPECS
from profilemate.insight.metrics.family import Spec

TARGET = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"

HEAD = """# The metrics

Made by `scripts/docs/docs_metrics.py` from the code. `profilemate export SESSION -o session.om`
writes the figures of a session in the OpenMetrics format, for Prometheus to scrape from any file
server (as `application/openmetrics-text; version=1.0.0; charset=utf-8`, or as plain text);
`--format prometheus` in the older text format, for `promtool check metrics` and the textfile
collector of the node exporter. Needs the extra `export`.

* A metric that is not there was not recorded. A 0 was counted.
* No sample has a time: the run is over, and Prometheus takes the time of the scrape.
* Label `session` is the session's id, `rank` the rank as its folder is called (`dp0_pp0_tp0`).
  Labels of a graph are the columns of its key in `cuda_graph_replay_latency.csv`, spelled as there;
  None is no label. `runtime_mode="NONE"` is eager, `unknown` a step that does not say its mode.
* Quantiles are over the steps of the recording, and `quantile="1"` is the largest value. The
  buckets of the histograms are those of vLLM's `vllm:kv_block_lifetime_seconds`.
* Values are as exact as the CSV files that they are made of.

| metric | type | meaning |
| --- | --- | --- |
"""


def _row(spec: Spec) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(spec.kind, "")
    return f"| `{spec.name}{suffix}` | {spec.kind} | {spec.help} |"


def text() -> str:
    """The page."""
    return HEAD + "\n".join(map(_row, SPECS)) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
