"""What the sidecar costs: time per message, and per step of a busy engine; bytes per step.

The figures are of this machine; nothing is asserted. The exit of a real server with and without a
live session is compared by `tests/e2e/test_live.py`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter_ns

CLONE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CLONE))

from profilemate import schema  # noqa: E402
from profilemate.annotate.sinks.sidecar import SidecarSink  # noqa: E402

COUNT = 20_000
EVENT = "kv.alloc ago=123456 dur=4321 pool=0 used=1234 ids=17 req=cmpl-8a6f0e2b5d7c4c0f-0"


def measure(events: int, **options: bool | int) -> tuple[float, float, float]:
    """Median and 99th percentile of ns per mark of so many events; bytes in the file for each."""
    text = schema.encode_batch([EVENT] * events, t=1, seq=1)
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "markers").mkdir()
        sink = SidecarSink(lambda: Path(place), **options)  # type: ignore[arg-type]
        took = []
        sink.mark(text)  # opens the file and starts the thread
        sink.flush()
        for _ in range(max(2000, COUNT // events)):
            began = perf_counter_ns()
            sink.mark(text)
            took.append(perf_counter_ns() - began)
        sink.close()
        size = sum(file.stat().st_size for file in (Path(place) / "markers").iterdir())
    return statistics.median(took), statistics.quantiles(took, n=100)[98], size / len(took)


def ranges() -> float:
    """Median ns of a range, opened and closed."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "markers").mkdir()
        sink = SidecarSink(lambda: Path(place))
        text = "pm1.step ago=4242 step=17 mode=FULL num_tokens=256 num_reqs=256 uniform=True"
        took = []
        for _ in range(COUNT):
            began = perf_counter_ns()
            sink.push(text)
            sink.pop()
            took.append(perf_counter_ns() - began)
        sink.close()
    return statistics.median(took)


def main() -> None:
    """Print the table."""
    rows: tuple[tuple[str, dict[str, bool | int]], ...] = (
        ("plain", {}),
        ("every message at once", {"interval": 1}),
        ("gzip", {"packed": True}),
    )
    print("events in the batch | how | median us | p99 us | bytes")
    for events in (1, 20, 256):
        for name, options in rows:
            middle, p99, size = measure(events, **options)
            print(f"{events:6} | {name} | {middle / 1e3:.2f} | {p99 / 1e3:.2f} | {size:.0f}")
    print(f"a range (push and pop): {ranges() / 1e3:.2f} us")


if __name__ == "__main__":
    main()
