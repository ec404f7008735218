"""Meta's Holistic Trace Analysis on the torch traces of a run, beside our own figures.

HTA (the project publishes as `traceinsight`) is imported here and only when it is asked for: it
brings plotly and Jupyter. It knows no CUDA graph launches, so what it leaves out is said with it.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from profilemate.errors import InputError, OutputError, ToolError, missing_extra
from profilemate.hta.trace_copies import SHIFT, Copy, copies
from profilemate.parse.cache import TraceCache
from profilemate.parse.pipeline import read_trace
from profilemate.parse.readers import open_recording
from profilemate.parse.session.coverage import Coverage, coverage
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.writers.one_file import write_file
from profilemate.printable import shell_word
from profilemate.schema.live import METADATA

SUMMARY = "hta_summary.json"
TABLES = ("temporal", "kernel_types", "kernels", "idle", "idle_intervals", "launches")

# HTA fails in ways of its own on traces that it was not made for; to the user all are one.
_FAULTS = (
    *(LookupError, TypeError, ValueError, AttributeError),
    *(AssertionError, ArithmeticError, OSError),
)


@dataclass(frozen=True, slots=True)
class Breakdowns:
    """HTA's tables by name, and what must be known beside them."""

    tables: dict[str, pd.DataFrame]
    summary: dict[str, Any]


def torch_traces(path: Path) -> list[Path]:
    """The torch traces of a session directory, or the trace itself.

    Raises:
        InputError: There is none, or it is not where the session says.
    """
    if not path.is_dir():
        return [path]
    session = SavedSession.open(path)
    found: list[Path] = []
    for source in session.metadata.sources:
        if source.path is None or source.kind is None or not source.kind.by_torch:
            continue
        places = [Path(source.path), path / source.path, path.parent / source.path]
        there = [p for p in places if os.path.isfile(p)]  # any text may stand there
        if not there:
            raise InputError(
                "A trace of this session is not there any more",
                path=source.path,
                why=f"{path / METADATA} names it as a source.",
                hint="Give the trace itself:",
                command="profilemate hta TRACE -o DIR",
            )
        found.append(there[0])
    if not found:
        raise InputError(
            "This session was made of no torch profiler trace",
            path=path,
            why="HTA reads nothing else.",
            hint="Record with vLLM's torch profiler, or give a trace of it.",
        )
    return found


def hta(
    path: Path, out: Path, *, force: bool = False, decoded: TraceCache | None = None
) -> Breakdowns:
    """Run HTA's breakdowns and write them as `hta_<name>.csv` and `hta_summary.json`.

    Args:
        path: A session directory, or a torch trace.
        out: The directory to write to; it may hold other files, such as the session's.
        force: Replace an older result in it.
        decoded: Where traces that were decoded before are kept.

    Raises:
        InputError: There is no trace, or it cannot be read.
        OutputError: The files exist and `force` is not set, or cannot be written.
        ToolError: HTA is not installed, or fails.
    """
    traces = torch_traces(path)
    names = [*(f"hta_{name}.csv" for name in TABLES), SUMMARY]
    there = [out / name for name in names if (out / name).exists()]
    if there and not force:
        raise OutputError(
            "will not overwrite without --force",
            path=there[0],
            why="the file exists",
            hint="choose another directory with -o, or add --force",
        )
    analyse = _analysis()
    for trace in traces:
        kind = open_recording(trace).info.kind  # says what is wrong with it, if anything is
        if not kind.by_torch:
            raise InputError(
                "HTA reads torch profiler traces only",
                path=trace,
                why=f"It is: {kind}.",
                hint="Its tables need no HTA:",
                command=f"profilemate parse {shell_word(trace)}",
            )
    found = coverage(read_trace(traces, decoded=decoded, records=False))
    with tempfile.TemporaryDirectory(prefix="profilemate-hta-") as folder:
        copied = copies(traces, Path(folder))
        with _quiet():
            tables, version = _run(analyse, copied)
    summary = _summary(copied, tables, found, version)
    without = [str(trace) for trace in traces if trace not in {c.source for c in copied}]
    result = Breakdowns(tables, summary | {"traces_without_gpu_records": without})
    for name, table in tables.items():
        write_file(out / f"hta_{name}.csv", table.to_csv(index=False), force=force)
    write_file(out / SUMMARY, json.dumps(result.summary, indent=2) + "\n", force=force)
    return result


def _analysis() -> Any:
    os.environ["HTA_DISABLE_NS_ROUNDING"] = "1"  # read once, when HTA is imported
    try:
        with _quiet():
            from hta.trace_analysis import TraceAnalysis
    except ImportError as e:
        raise ToolError(
            "HTA is not here",
            why=f"It cannot be imported: {e}.",
            hint="Install what it needs:",
            command=missing_extra("hta"),
        ) from e
    return TraceAnalysis


@contextmanager
def _quiet() -> Iterator[None]:
    """HTA logs its progress and uses what pandas 3 deprecates."""
    logger = logging.getLogger("hta")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _run(analyse: Any, copied: Sequence[Copy]) -> tuple[dict[str, pd.DataFrame], str]:
    from importlib.metadata import version

    ranks = [copy.rank for copy in copied]
    try:
        analysis = analyse(
            trace_files={copy.rank: str(copy.path) for copy in copied},
            include_last_profiler_step=True,
        )
        types, kernels = analysis.get_gpu_kernel_breakdown(
            visualize=False, duration_ratio=1.0, num_kernels=1_000_000_000
        )
        idle, intervals = analysis.get_idle_time_breakdown(
            ranks=ranks, visualize=False, show_idle_interval_stats=True
        )
        launches = analysis.get_cuda_kernel_launch_stats(ranks=ranks, visualize=False)
        temporal = analysis.get_temporal_breakdown(visualize=False)
    except _FAULTS as e:
        raise ToolError(
            "HTA failed on this trace",
            path=copied[0].source,
            why=f"{type(e).__name__}: {e}",
            hint="Its tables need no HTA:",
            command=f"profilemate parse {shell_word(copied[0].source)}",
        ) from e
    per_rank = [frame.assign(rank=rank) for rank, frame in launches.items()]
    launched = pd.concat(per_rank, ignore_index=True)
    launched["correlation"] -= SHIFT
    tables = {
        "temporal": temporal,
        "kernel_types": types,
        "kernels": kernels,
        "idle": idle,
        "idle_intervals": intervals.reset_index(),
        "launches": launched,
    }
    assert tuple(tables) == TABLES
    return tables, version("traceinsight")


def _summary(
    copied: Sequence[Copy], tables: dict[str, pd.DataFrame], found: Coverage, version: str
) -> dict[str, Any]:
    kernels = tables["kernels"]
    memory = kernels["kernel_type"] == "MEMORY"
    return {
        "hta_version": version,
        "traces": [
            {
                "path": str(copy.source),
                "rank": copy.rank,
                "steps": copy.steps,
                "steps_from": copy.steps_from,
                "cpu_ops_without_their_stream": copy.mended,
            }
            for copy in copied
        ],
        "hta": {
            "kernel_time_us": float(kernels.loc[~memory, "sum (us)"].sum()),
            "memory_time_us": float(kernels.loc[memory, "sum (us)"].sum()),
            "launches": len(tables["launches"]),
        },
        "profilemate": found,
        "left_out": left_out(tables, found),
    }


def left_out(tables: dict[str, pd.DataFrame], found: Coverage) -> list[str]:
    """What HTA's tables do not hold, a sentence each."""
    told: list[str] = []
    launches, seen = found["launches"], len(tables["launches"])
    if launches:
        text = (
            f"HTA knows no graph launches: {launches} of them are not in hta_launches.csv, which "
            f"has {seen} launches of single kernels"
        )
        inside, kernels = found["kernels_in_graphs"], found["kernels"]
        if inside is not None and kernels:
            text += f"; {inside} of {kernels} kernels ran in graphs"
        part, whole = found["kernel_time_in_graphs_us"], found["kernel_time_us"]
        if part is not None and whole:
            text += f", {100 * part / whole:.1f} % of the kernel time"
        told.append(text + ".")
    alone = (found["kernels"] or 0) - (found["kernels_in_graphs"] or 0)
    if seen < alone:
        told.append(
            f"HTA's launch breakdown has {seen} rows for {alone} kernels outside of graphs: it "
            "knows cudaLaunchKernel and cudaLaunchKernelExC, not cuLaunchKernelEx nor HIP's "
            "names."
        )
    kernels_of_hta = tables["kernels"]
    memory = kernels_of_hta["kernel_type"] == "MEMORY"
    time, ours = float(kernels_of_hta.loc[~memory, "sum (us)"].sum()), found["kernel_time_us"]
    if ours is not None and abs(time - ours) > max(1.0, 1e-6 * ours):
        told.append(
            f"HTA's kernel time is {time:.3f} us, the trace holds {ours:.3f} us: HTA leaves out "
            "kernels whose launch is not in the trace, and tells kernels from memory operations by "
            "their names."
        )
    return told


def sections(result: Breakdowns) -> list[tuple[str, list[tuple[str, str]]]]:
    """HTA's temporal breakdown and what it leaves out, as titled lines for the terminal."""
    told: list[tuple[str, list[tuple[str, str]]]] = []
    steps = {t["rank"]: t for t in result.summary["traces"]}
    for row in result.tables["temporal"].to_dict("records"):
        trace = steps[row["rank"]]
        rows = [
            ("steps", f"{trace['steps']} from {trace['steps_from']}"),
            ("compute", f"{row['compute_time(us)'] / 1e3:.3f} ms ({row['compute_time_pctg']} %)"),
            (
                "other",
                f"{row['non_compute_time(us)'] / 1e3:.3f} ms ({row['non_compute_time_pctg']} %)",
            ),
            ("idle", f"{row['idle_time(us)'] / 1e3:.3f} ms ({row['idle_time_pctg']} %)"),
        ]
        told.append((f"HTA {result.summary['hta_version']}, rank {row['rank']}", rows))
    told.append(("Left out by HTA", [("note:", text) for text in result.summary["left_out"]]))
    return [section for section in told if section[1]]
