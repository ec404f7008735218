"""Read damaged recordings and sessions, many of them, and see that nothing comes to harm.

    scripts/campaign [-n 20000] [--seed 1] [--jobs 2] [--only CASE] [--keep FOLDER]

Every case damages a recording, a live session or a saved one at random (`mutations.py`; the number
of the case is its seed) and gives it to a command. It ends with exit code 0 or 2, without a
traceback, in less than 1 GB and 10 s of CPU (5 more for each GB), and writes nothing but its own
output: the process itself watches what it opens for writing, removes and renames (Python's audit
events). Prints every fault with the command that shows it again, and ends with 1 if there was one.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mutations

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

DATA = ROOT / "tests" / "data"
MOST_BYTES = 1 << 30
CPU_S, CPU_S_PER_GB = 10.0, 5.0
WALL_S = 60

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGING = {
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "shutil.rmtree", "shutil.move"),
}


@dataclass
class Case:
    """One damaged input and what is done with it.

    Attributes:
        seed: Of its damage.
        kind: What was damaged.
        words: The command line.
    """

    seed: int
    kind: str
    words: list[str]


@dataclass
class Outcome:
    """How a case ended, and what was wrong with that."""

    code: int
    cpu_s: float
    peak_bytes: int
    faults: list[str] = field(default_factory=list)


def seeds(folder: Path) -> dict[str, Path]:
    """What is damaged: recordings that come with the clone, and sessions that are made of them."""
    from profilemate.parse.pipeline import parse_session

    folder.mkdir(parents=True)
    made, torch = DATA / "made_nsys" / "recording.sqlite", DATA / "made_torch"
    found = {
        "nsys": made,
        "torch": torch / "recording.json.gz",
        "sidecar": torch / "worker.trace.json",
    }
    session = folder / "session"
    parse_session([made], session)
    found["session"] = session
    live = folder / "live"
    (live / "markers").mkdir(parents=True)
    for name in ("engine", "worker"):
        shutil.copy(torch / f"{name}.trace.json", live / "markers" / f"{name}_4000.trace.json")
    parse_session([live])
    found["live"] = live
    found["folder"] = folder / "folder"
    shutil.copytree(torch, found["folder"], ignore=shutil.ignore_patterns("expected", "*.md"))
    return found


def make_case(number: int, sources: dict[str, Path], place: Path) -> Case:
    """Damage something, and choose what is done with it."""
    rng = random.Random(number)
    kind = rng.choice(sorted(sources))
    source = sources[kind]
    target = place / source.name
    if source.is_dir():
        shutil.copytree(source, target)
        mutations.damage_folder(target, rng)
    else:
        shutil.copy(source, target)
        mutations.damage_file(target, rng)
    out = place / "out"
    if kind == "session":
        words = rng.choice(
            [
                ["report", str(target)],
                ["report", str(target), "--json"],
                ["export", str(target)],
                ["compare", str(source), str(target)],
                ["compare", str(target), str(source), "--json"],
            ]
        )
    elif kind == "live" and rng.random() < 0.7:
        words = ["parse", str(target), "--no-cache"]
    else:
        words = rng.choice(
            [
                *[["parse", str(target), "-o", str(out), "--no-cache"]] * 6,
                ["parse", str(target), "-o", str(out), "--no-cache", "--max-memory", "500M"],
                ["parse", str(target), "-o", str(out), "--no-cache", "--json", "--timeline"],
                ["perfetto", str(target), "-o", str(out), "--no-cache", "--kernels"],
            ]
        )
    return Case(number, kind, words)


def run(case: Case, place: Path) -> Outcome:
    """Run a case in a process of its own, which starts with everything imported."""
    log, watched = place / "said.txt", place / "touched.txt"
    pid = os.fork()
    if pid == 0:
        _child(case, place, log, watched)
    until = time.monotonic() + WALL_S
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > until:
            os.kill(pid, 9)
            _, status, usage = os.wait4(pid, 0)
            break
        time.sleep(0.005)
    outcome = Outcome(
        os.waitstatus_to_exitcode(status),
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
    )
    said = log.read_text("utf-8", "replace") if log.exists() else ""
    outcome.faults += _faults(outcome, said, case)
    outcome.faults += watched.read_text("utf-8", "replace").splitlines() if watched.exists() else []
    return outcome


def _faults(outcome: Outcome, said: str, case: Case) -> Iterator[str]:
    if outcome.code not in (0, 2):
        yield f"exit code {outcome.code}"
    if "Traceback (most recent call last)" in said:
        yield f"a traceback: {said.strip().splitlines()[-1][:200]}"
    if outcome.code == 2 and "error" not in said.lower():
        yield "exit code 2 without a word"
    if "\x1b[31mred" in said and "--json" not in case.words:
        yield "an escape sequence of the recording's reaches the terminal"
    if outcome.peak_bytes > MOST_BYTES:
        yield f"{outcome.peak_bytes >> 20} MB"
    if outcome.cpu_s > CPU_S + CPU_S_PER_GB * 0.1:
        yield f"{outcome.cpu_s:.1f} s of CPU"


def _child(case: Case, place: Path, log: Path, watched: Path) -> None:
    """Be the process of a case; never returns."""
    code = 70
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        home = place / "home"
        home.mkdir()
        os.environ |= {"HOME": str(home), "TMPDIR": str(home), "COLUMNS": "100"}
        tempfile.tempdir = None
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        touched = os.open(watched, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.chdir(place)
        _watch(place, touched)
        sys.argv = ["profilemate", *case.words]
        from profilemate.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        if sys.exc_info()[0] is not None:  # what Python would do at the end of a program
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(place: Path, log: int) -> None:
    """Note whatever this process changes outside of its own folder."""
    inside = (str(place) + os.sep, "/dev/", "/proc/")

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            paths = arguments[:1]
        elif event in _CHANGING:
            paths = arguments[:2]
        else:
            return
        for path in paths:
            if isinstance(path, bytes):
                path = os.fsdecode(path)
            if isinstance(path, str | os.PathLike):
                whole = os.path.realpath(os.fspath(path))
                if not (str(whole) + os.sep).startswith(inside):
                    os.write(log, f"{event} {whole!r}, which is not its own\n".encode())

    sys.addaudithook(hook)


def main(arguments: list[str] | None = None) -> int:
    """Run as a program; see the top of this file."""
    parser = argparse.ArgumentParser(description="Damage recordings; nothing may come to harm.")
    parser.add_argument("-n", type=int, default=20_000, help="cases")
    parser.add_argument("--seed", type=int, default=1, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", type=int, help="one case, and show what it says")
    parser.add_argument("--keep", type=Path, help="keep the inputs of faults here")
    options = parser.parse_args(arguments)
    # As a command would have it, and before the forks: they start with everything imported.
    os.environ["PROFILEMATE_CACHE_MB"] = "0"
    import profilemate.api
    import profilemate.cli.app  # noqa: F401

    with tempfile.TemporaryDirectory() as scratch:
        sources = seeds(Path(scratch) / "seeds")
        first, count = (options.only, 1) if options.only is not None else (options.seed, options.n)
        jobs = min(options.jobs, count)
        read, write = os.pipe()  # shared: a line is written at once
        for job in range(jobs):
            if os.fork() == 0:
                os.close(read)
                numbers = range(first + job, first + count, jobs)
                try:
                    _work(numbers, sources, Path(scratch) / f"job{job}", write, options)
                finally:
                    if sys.exc_info()[0] is not None:
                        sys.excepthook(*sys.exc_info())
                    os._exit(0)
        os.close(write)
        with os.fdopen(read, encoding="utf-8") as lines:
            return _tell(lines, count)


def _work(
    numbers: range, sources: dict[str, Path], place: Path, write: int, options: argparse.Namespace
) -> None:
    """Run cases; a line each goes to whoever started this."""
    for number in numbers:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        case = make_case(number, sources, place)
        outcome = run(case, place)
        if options.only is not None:
            print(*case.words, (place / "said.txt").read_text("utf-8", "replace"), sep="\n")
        if outcome.faults and options.keep:
            shutil.copytree(place, options.keep / str(number), symlinks=True)
        what = " ".join(w for w in case.words if not w.startswith(str(place)))
        faults = "; ".join(outcome.faults).replace("\t", " ").replace("\n", " ")[:1500]
        figures = f"{outcome.cpu_s:.2f}\t{outcome.peak_bytes}"
        line = f"{number}\t{case.kind}\t{outcome.code}\t{figures}\t{what}\t{faults}\n"
        os.write(write, line.encode("utf-8", "backslashreplace"))


def _tell(lines: Iterable[str], count: int) -> int:
    """Print what workers say, and what came of it all; 1 if anything was wrong."""
    ended: collections.Counter[str] = collections.Counter()
    faulty, done, cpu_s, peak = 0, 0, 0.0, 0
    for line in lines:
        number, kind, code, cpu, most, what, faults = line.rstrip("\n").split("\t")
        done += 1
        ended[f"{kind}: exit code {code}"] += 1
        cpu_s, peak = max(cpu_s, float(cpu)), max(peak, int(most))
        if faults:
            faulty += 1
            print(f"case {number} ({kind}, {what}): {faults}", flush=True)
        if done % 1000 == 0:
            print(f"{done} of {count}", flush=True)
    for name, times in sorted(ended.items()):
        print(f"{times:7} {name}")
    print(
        f"{done} cases, {faulty} with a fault; at most {cpu_s:.1f} s of CPU and {peak >> 20} MB; "
        "show one again with --only NUMBER"
    )
    return 1 if faulty or done < count else 0


if __name__ == "__main__":
    sys.exit(main())
