"""How fast and in how much memory torch profiler traces are read, beside other ways to read them.

Prints a table in Markdown; `--write` puts it into docs/benchmarks.md. The traces are made by
scripts/kineto_traces.py. Machines are noisy: all that is compared runs in turn, each as a process
of its own, and ratios are of CPU seconds. Peers that are not installed are left out; `--hta` names
an interpreter that has HTA (the package traceinsight).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kineto_traces

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "benchmarks.md"

_SOURCES = {
    "inflate": """
import sys
try:
    from isal import isal_zlib as zlib
except ImportError:
    import zlib
file = open(sys.argv[1], "rb")
unpack = zlib.decompressobj(31) if sys.argv[1].endswith(".gz") else None
while block := file.read(1 << 20):
    unpack and unpack.decompress(block)
""",
    "columns": """
import sys
from profilemate.parse.readers import open_recording
from profilemate.parse.collected import Collected
recording = open_recording(sys.argv[1])
for _ in recording.markers():
    pass
sink = Collected(records=False)
sink.read(0, recording)
""",
    "parse": """
import sys
from profilemate.cli import main
sys.argv = ["profilemate", "parse", "--quiet", "--force", "-o", sys.argv[2], sys.argv[1]]
main()
""",
    "json": """
import gzip, json, sys, pandas
opened = gzip.open if sys.argv[1].endswith(".gz") else open
events = json.load(opened(sys.argv[1], "rb"))["traceEvents"]
kernels = pandas.DataFrame([
    (e["ts"], e["dur"], e["args"].get("correlation"), e["name"])
    for e in events if e.get("cat") == "kernel"])
""",
    "orjson": """
import gzip, orjson, sys, pandas
opened = gzip.open if sys.argv[1].endswith(".gz") else open
events = orjson.loads(opened(sys.argv[1], "rb").read())["traceEvents"]
kernels = pandas.DataFrame([
    (e["ts"], e["dur"], e["args"].get("correlation"), e["name"])
    for e in events if e.get("cat") == "kernel"])
""",
    "hta": """
import sys
from hta.common.trace import parse_trace_file
parse_trace_file(sys.argv[1])
""",
}
TITLES = {
    "inflate": "reading and unpacking only (the floor)",
    "columns": "profilemate, to columns",
    "columns, one core": "profilemate, to columns, one core",
    "parse": "profilemate parse, all tables written",
    "json": "json.load + pandas",
    "orjson": "orjson + pandas",
    "hta": "HTA, parse_trace_file",
}


@dataclass(frozen=True)
class Run:
    """What one process took."""

    wall: float
    cpu: float
    peak: int  # MB
    ok: bool


def run(name: str, trace: Path, out: Path, python: str) -> Run:
    """Run one contestant; its children count, but for the peak, which is of the largest process."""
    command = [python, "-c", _SOURCES[name.partition(",")[0]], str(trace), str(out)]
    if name.endswith("one core"):
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begin = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=out.parent)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if status:
            log.seek(0)
            print(f"{name} failed: {log.read()[-300:]!r}", file=sys.stderr)
    cpu = usage.ru_utime + usage.ru_stime
    return Run(time.monotonic() - begin, cpu, usage.ru_maxrss // 1024, not status)


def contestants(trace: Path, megabytes: float, hta: str | None) -> list[str]:
    """Who reads a trace of this size."""
    found = ["inflate", "columns"]
    if trace.suffix != ".gz" and megabytes >= 150:
        found.append("columns, one core")
    found.append("parse")
    if megabytes <= 1100:  # json needs 3 bytes of memory per byte, orjson 5
        found.append("json")
        if importlib.util.find_spec("orjson") and megabytes <= 400:
            found.append("orjson")
    if hta and megabytes <= 400:
        found.append("hta")
    return found


def compare(
    trace: Path, megabytes: float, hta: str | None, rounds: int, only: Sequence[str] | None
) -> dict[str, Run]:
    """Let all read a trace in turn; the best of each."""
    best: dict[str, Run] = {}
    for number in range(rounds):
        for name in contestants(trace, megabytes, hta):
            if only and name not in only:
                continue
            if number and name in ("json", "orjson", "hta"):
                continue  # minutes, and no closer
            python = hta if name == "hta" and hta else sys.executable
            one = run(name, trace, trace.parent / "session", python)
            print(f"{trace.name}: {name}: {one}", file=sys.stderr)
            if one.ok and (name not in best or one.cpu < best[name].cpu):
                best[name] = one
    return best


def table(title: str, megabytes: float, found: dict[str, Run]) -> str:
    """The results for one trace."""
    floor, ours = found["inflate"], found["columns"]
    lines = [
        f"## {title}",
        "",
        "| | wall s | CPU s | peak MB | MB/s of JSON | CPU to the floor's | CPU to ours |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, r in found.items():
        lines.append(
            f"| {TITLES[name]} | {r.wall:.2f} | {r.cpu:.2f} | {r.peak} | {megabytes / r.wall:.0f} "
            f"| {r.cpu / floor.cpu:.1f} | {r.cpu / ours.cpu:.1f} |"
        )
    return "\n".join(lines)


def versions() -> str:
    """The machine and what ran on it."""
    cpu = platform.processor() or platform.machine()
    try:
        model = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
        cpu = model[0].partition(":")[2].strip() if model else cpu
    except OSError:
        pass
    found = []
    for package in ("numpy", "pandas", "isal", "orjson"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {package}")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {cpu}, Python {platform.python_version()}, {', '.join(found)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the traces, read them, print and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--layout", choices=kineto_traces.LAYOUTS, nargs="+", default=["kineto"])
    parser.add_argument("--suffix", choices=(".json.gz", ".json"), nargs="+", default=None)
    parser.add_argument("--only", choices=TITLES, nargs="+", help="all of these, and no others")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--hta", help="an interpreter that has HTA")
    parser.add_argument("--folder", type=Path, help="where the traces are made")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    texts = []
    try:
        for megabytes in options.megabytes:
            for layout in options.layout:
                for suffix in options.suffix or (".json.gz", ".json"):
                    trace = folder / f"{layout}_{megabytes:g}.pt.trace{suffix}"
                    size = kineto_traces.write(trace, int(megabytes * 1e6), layout) / 1e6
                    title = f"{size:.0f} MB of JSON, layout {layout}, {suffix}"
                    found = compare(trace, size, options.hta, options.rounds, options.only)
                    texts.append(table(title, size, found))
                    trace.unlink()
    finally:
        shutil.rmtree(folder)
    text = (
        "# How fast traces are read\n\nMade by `python scripts/bench_parse.py --write` on "
        f"{versions()}. Everything ran in turn, each as a process of its own with its start; the "
        f"best of {options.rounds} rounds by CPU seconds.\n\n" + "\n\n".join(texts) + "\n"
    )
    print(text)
    if options.write:
        DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
