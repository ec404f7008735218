"""The lines that people have run on these files since before profilemate, as they were written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOP_GRAPHS = """
import pandas as pd
# Load CUDA graph usage
graphs = pd.read_csv('cuda_graph_usage.csv')
# Find most-used graphs
top_graphs = graphs.nlargest(10, 'replay_count')
print("Top 10 CUDA Graphs:")
print(top_graphs[['num_tokens', 'replay_count']])
"""

TO_PROMETHEUS = """
import pandas as pd
kv_cache = pd.read_csv('kv_cache_usage.csv')
# Generate Prometheus metrics
for _, row in kv_cache.iterrows():
    print(f'vllm_kv_cache_usage{{timestamp="{row["timestamp_sec"]}"}} {row["usage_pct"]}')
"""

MEAN_USAGE = "awk -F',' 'NR>1 {sum+=$2; count++} END {print sum/count}' kv_cache_usage.csv"
PEAK_USAGE = "sort -t',' -k2 -rn kv_cache_usage.csv | head -1"
MOST_USED = "sort -t',' -k6 -rn cuda_graph_usage.csv | head -5"
SIZES = "cat cuda_graph_usage.csv | cut -d',' -f2 | sort | uniq -c"
TOTAL_REPLAYS = """total_replays=$(awk -F',' 'NR>1 {sum+=$6} END {print sum}' cuda_graph_usage.csv)
echo "Total CUDA graph replays: $total_replays"
"""
QUICK = """awk -F',' 'NR>1 && $2<10 {count++} END {print count " blocks evicted quickly"}' \\
kv_cache_evictions.csv"""


def shell(session: Path, command: str) -> str:
    """What bash prints for it in a session directory, without a word on stderr."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=session, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), command
    return done.stdout


def python(session: Path, code: str) -> str:
    """What Python prints for it in a session directory."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=session, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
