"""Large nsys exports: replay -> launch -> kernels, against a bare SELECT and pandas.

Every contestant is a process of its own; they take turns. `bare` is SQLite alone: count and sum of
end - start over the three large tables, the least that anybody who looks at each row can take.
`ours` reads the trace and folds the GPU records of every replay, `pandas` joins what it reads with
`read_sql`. All but the first must find the same. `--files` reads two copies one after the other and
at a time.

The least of some rounds is given of the wall clock and of the CPU, the most of the memory: on a
machine with other work the ratio of CPU seconds says more than that of the wall clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "data")]

TABLES = ("NVTX_EVENTS", "CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_KERNEL")


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)


def bare(paths: list[Path]) -> dict[str, int]:
    """SQLite alone."""
    rows = 0
    with closing(_open(paths[0])) as db:
        for table in TABLES:
            rows += db.execute(f"SELECT count(*), sum(end - start) FROM {table}").fetchone()[0]
    return {"rows": rows}


def ours(paths: list[Path], jobs: int = 1) -> dict[str, int]:
    """The trace, and the GPU work of its replays."""
    from profilemate.parse.pipeline import read_trace
    from profilemate.parse.trace.steps_on_gpu import owners, work_of

    trace = read_trace(paths, records=False, jobs=jobs)
    replays = len(trace.frames["graph.replay"])
    work = work_of(trace, owners(trace).replay, replays)
    return {
        "replays": replays,
        "records": int(work.gpu.count.sum()),
        "span": int(work.gpu.span.sum()),
    }


def pandas_(paths: list[Path]) -> dict[str, int]:
    """`pandas.read_sql` and merges, as one would write it by hand."""
    import numpy as np
    import pandas as pd

    events, runtime, kernels = TABLES
    with closing(_open(paths[0])) as db:
        replays = pd.read_sql(
            f"SELECT start, end, globalTid FROM {events} JOIN StringIds ON id = textId "
            "WHERE value GLOB 'pm1.graph.replay *' ORDER BY start",
            db,
        )
        launches = pd.read_sql(
            f"SELECT start, globalTid, correlationId FROM {runtime} JOIN StringIds ON id = nameId "
            "WHERE value GLOB 'cudaGraphLaunch*'",
            db,
        )
        records = pd.read_sql(f"SELECT start, end, correlationId FROM {kernels}", db)
    at = np.searchsorted(replays["start"], launches["start"], side="right") - 1
    launches["replay"] = at
    inside = (at >= 0) & (launches["start"] <= replays["end"].to_numpy()[at])
    joined = records.merge(launches.loc[inside, ["correlationId", "replay"]], on="correlationId")
    folded = joined.groupby("replay").agg(start=("start", "min"), end=("end", "max"))
    span = int((folded["end"] - folded["start"]).sum())
    return {"replays": len(replays), "records": len(joined), "span": span}


CONTESTANTS: dict[str, Callable[[list[Path]], dict[str, int]]] = {
    "bare SELECT": bare,
    "ours": ours,
    "pandas": pandas_,
}
SEVERAL = {"one after the other": 1, "two at a time": 2}


def contest(name: str, paths: list[Path]) -> None:
    """Be one contestant, and say what it took."""
    begin = time.perf_counter()
    jobs = SEVERAL.get(name)
    found = CONTESTANTS[name](paths) if jobs is None else ours(paths, jobs)
    wall = time.perf_counter() - begin
    mine, theirs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    cpu = sum(u.ru_utime + u.ru_stime for u in (mine, theirs))
    print(
        json.dumps(
            {
                "found": found,
                "wall": wall,
                "cpu": cpu,
                "peak": max(mine.ru_maxrss, theirs.ru_maxrss),
            }
        )
    )


def take_turns(names: list[str], paths: list[Path], rounds: int) -> dict[str, dict[str, Any]]:
    """The best of some rounds of each: of wall clock and CPU the least, of memory the most."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for name in names:
            command = [sys.executable, __file__, "--contest", name, *map(str, paths)]
            begin = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            told = json.loads(done.stdout.splitlines()[-1])
            told["wall"] = time.perf_counter() - begin  # with the start of Python, as users wait
            known = best.setdefault(name, told)
            assert known["found"] == told["found"]
            for figure, pick in (("wall", min), ("cpu", min), ("peak", max)):
                known[figure] = pick(known[figure], told[figure])
    return best


def table(best: dict[str, dict[str, Any]], floor: str) -> Iterator[str]:
    """Markdown."""
    yield f"| | wall s | CPU s | peak MB | wall to {floor} | CPU to {floor} |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, told in best.items():
        wall, cpu = (told[k] / best[floor][k] for k in ("wall", "cpu"))
        peak = told["peak"] / 1024
        figures = f"{told['wall']:.1f} | {told['cpu']:.1f} | {peak:.0f} | {wall:.2f} | {cpu:.2f}"
        yield f"| {name} | {figures} |"


def machine() -> str:
    """What the figures are of."""
    names = ("numpy", "pandas", "pyarrow")
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"{cores} cores ({platform.machine()}), load {load:.1f} at the start, Python "
        f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}, {', '.join(found)}"
    )


def main() -> None:
    """Measure."""
    import bench_document
    from nsys_exports import Size, write

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nvtx", type=float, default=20, help="million rows")
    parser.add_argument("--runtime", type=float, default=10, help="million rows")
    parser.add_argument("--kernels", type=float, default=10, help="million rows")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--file", type=Path, help="an export that is there already")
    parser.add_argument("--files", action="store_true", help="two files on two cores")
    parser.add_argument("--without", nargs="*", default=[], choices=[*CONTESTANTS])
    parser.add_argument("--write", action="store_true", help="write the chapter")
    parser.add_argument("--contest", help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contest:
        contest(given.contest, given.paths)
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        path = given.file or Path(folder) / "run.sqlite"
        size = Size(*(int(1e6 * n) for n in (given.nvtx, given.runtime, given.kernels)))
        if given.file is None:
            write(path, size)
        told = [f"{path.stat().st_size / 1e6:.0f} MB; {machine()}"]
        if given.files:
            second = Path(folder) / "second.sqlite"
            write(second, size, pid=77)
            best = take_turns([*SEVERAL], [path.resolve(), second], given.rounds)
        else:
            names = [name for name in CONTESTANTS if name not in given.without]
            best = take_turns(names, [path.resolve()], given.rounds)
        answers = [one["found"] for name, one in best.items() if name != "bare SELECT"]
        assert all(answer == answers[0] for answer in answers), answers
        told += ["\n".join(table(best, next(iter(best))))]
        told += ["Found: " + ", ".join(f"{n} {count}" for n, count in answers[0].items()) + "."]
        print("\n\n".join(told))
        if given.write:
            rows = f"{given.nvtx:g} million NVTX rows, {given.runtime:g} million API calls and "
            rows += f"{given.kernels:g} million kernels"
            made = f"Made by `python scripts/bench/bench_nsys.py --write`: {rows}; the floor is "
            made += "SQLite alone, `SELECT count(*), sum(end - start)` over the three tables."
            bench_document.put("How fast nsys exports are read", "\n\n".join([made, *told]))


if __name__ == "__main__":
    main()
