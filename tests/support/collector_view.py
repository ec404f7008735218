"""What vLLM itself counts of the lives of blocks."""

from __future__ import annotations

import pandas as pd


def collector_view(lifetimes: pd.DataFrame) -> pd.DataFrame:
    """The lives that vLLM's own KVCacheMetricsCollector counts, in order of their end.

    With `--kv-cache-metrics --kv-cache-metrics-sample 1.0` its histograms then hold exactly these
    `lifetime_sec` and `idle_sec`, up to the time that passes between our clock reading and vLLM's
    within one call. It counts every block that `get_new_blocks` hands out with prefix caching on,
    be its old content `evicted` or be there none (`reused`), and what `evict_blocks` (`connector`)
    invalidates. It does not count

    * lives that it did not see begin, as `reset_prefix_cache` and a connector's eviction make it
      forget the block; here their allocation is None. The same holds for lives that this recording
      did not see begin, and those vLLM has: the figures are equal for a recording of the whole run;
    * lives that end by a reset, or not at all;
    * re-use without prefix caching, where nothing tells the collector.

    Two things the events cannot show: an `evict_blocks` of a block that has no hash, which the
    collector counts and which changes nothing (the life goes on here); and the evictions of the
    same scheduler step before a successful reset, which it throws away unreported.
    """
    counted = lifetimes[lifetimes["counted_by_vllm"]]
    return counted.sort_values("ended_sec", kind="stable").reset_index(drop=True)
