"""How fast and in how much memory torch profiler traces are read, beside other ways to read them.

Prints a table in Markdown; `--write` puts it into docs/benchmarks.md. The traces are made by
scripts/data/kineto_traces.py. Machines are noisy: all that is compared runs in turn, each as a
process of its own, and ratios are of CPU seconds. Peers that are not installed are left out;
`--hta` names an interpreter that has HTA (the package traceinsight).
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import bench_document

from profilemate.parse.readers.kineto import native

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "data"))

import kineto_traces  # noqa: E402

_SOURCES = {
    "inflate": """
import sys
try:
    from isal import isal_zlib as zlib
except ImportError:
    import zlib
file = open(sys.argv[1], "rb")
unpack = zlib.decompressobj(31) if sys.argv[1].endswith(".gz") else None
# In blocks of a size that memory is kept for: of a whole MB unpacked at once three quarters of the
# time would be page faults.
while block := file.read(1 << 18 if unpack else 1 << 22):
    while unpack and block:
        unpack.decompress(block, 1 << 22)
        block = unpack.unconsumed_tail
""",
    "columns": """
import sys
from profilemate.parse.readers import open_recording
from profilemate.parse.gpu.collected import Collected
recording = open_recording(sys.argv[1])
for _ in recording.markers():
    pass
sink = Collected(records=False)
sink.read(0, recording)
""",
    "two files": """
import sys
from pathlib import Path
from profilemate.parse.ingest.read_many import read_all
from profilemate.parse.ingest.read_one import Task
first = Path(sys.argv[1])
second = first.with_name("second_" + first.name)
read_all([Task(first, records=False), Task(second, records=False)], jobs=int(sys.argv[3]))
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
    "columns, exact": "the same without the compiled scanner",
    "columns, one core": "profilemate, to columns, one core",
    "columns, exact, one core": "the same without the compiled scanner, one core",
    "columns, twice at once": "profilemate, to columns, twice at once, a core each",
    "columns, exact, twice at once": "the same without the compiled scanner, twice, a core each",
    "two files, 1 job": "profilemate, two such files, one after the other",
    "two files, 1 job, one core": "profilemate, two such files, one after the other, one core",
    "two files, 2 jobs": "profilemate, two such files at a time",
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
    if name.endswith("twice at once"):
        one = name.removesuffix("twice at once") + "one core"
        with ThreadPoolExecutor(2) as pool:
            cores = sorted(os.sched_getaffinity(0))[:2]
            runs = [*pool.map(lambda core: run_one(one, trace, out, python, core), cores)]
        return Run(
            max(r.wall for r in runs),
            sum(r.cpu for r in runs),
            max(r.peak for r in runs),
            all(r.ok for r in runs),
        )
    return run_one(name, trace, out, python, min(os.sched_getaffinity(0)))


def run_one(name: str, trace: Path, out: Path, python: str, core: int) -> Run:
    """Run one process of one contestant, on this core if it is to have but one."""
    source = _SOURCES[name.partition(",")[0]]
    jobs = "2" if name.endswith("2 jobs") else "1"
    command = [python, "-c", source, str(trace), str(out), jobs]
    if name.endswith("one core"):
        command = ["taskset", "-c", str(core), *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROFILEMATE_CACHE_MB": "0"}
    if "exact" in name:
        environment["PROFILEMATE_SCANNER"] = "exact"
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
    found = ["inflate", "columns", "columns, exact"]
    if trace.suffix != ".gz" and megabytes >= 150:
        found += ["columns, one core", "columns, exact, one core"]
        found += ["columns, twice at once", "columns, exact, twice at once"]
    elif megabytes >= 900:
        found += ["two files, 1 job", "two files, 1 job, one core", "two files, 2 jobs"]
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
    second = trace.with_name("second_" + trace.name)
    shutil.copyfile(trace, second)
    for number in range(rounds):
        for name in contestants(trace, megabytes, hta):
            if only and name not in only:
                continue
            if number and name in ("json", "orjson", "hta"):
                continue  # minutes, and no closer
            python = hta if name == "hta" and hta else sys.executable
            one = run(name, trace, trace.parent / "session", python)
            print(f"{trace.name}: {name}: {one}", file=sys.stderr)
            if one.ok and (name not in best or one.wall < best[name].wall):
                best[name] = one
    second.unlink()
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
    found.append(f"scanner: {native.description()}")
    return f"{cores} cores of {cpu}, Python {platform.python_version()}, {', '.join(found)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the traces, read them, print and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[100, 300, 1000, 4000])
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
        f"Made by `python scripts/bench/bench_parse.py --write` on {versions()}. Everything ran in "
        f"turn, each as a process of its own with its start; the best of {options.rounds} rounds "
        "by wall time. The floor unpacks with the same library and does nothing else, in blocks of "
        "the size that is best for it. Twice at once is what a second core is worth on this "
        "machine: two processes that have nothing to do with each other.\n\n" + "\n\n".join(texts)
    )
    print(text)
    if options.write:
        bench_document.put("How fast torch profiler traces are read", text)


if __name__ == "__main__":
    main()
