"""What to start, with which environment, and what will be there to parse afterwards."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from profilemate.errors import InputError, OutputError, ToolError
from profilemate.printable import shell_word
from profilemate.record.target import Target

Recorder = Literal["nsys", "torch", "live"]

GRACE_S = 20
"""Seconds that vLLM gets to end in order: it kills its engine otherwise, with what is buffered."""


@dataclass(slots=True)
class Plan:
    """A recording to be made.

    Attributes:
        recorder: Who records.
        folder: Where everything goes.
        command: The recorded command, options of ours included.
        prefix: The recorder's own command in front of it.
        env: Variables to set.
        traces: What the recorder will leave: files, or folders to look in.
        notes: What a user must know or do, a sentence each.
    """

    recorder: Recorder
    folder: Path
    command: tuple[str, ...]
    prefix: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    traces: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def session(self) -> Path:
        """The session directory."""
        return self.folder / "session"

    def line(self) -> str:
        """The whole command, to be typed or taken from here."""
        variables = [f"{name}={shell_word(value)}" for name, value in self.env.items()]
        return " ".join([*variables, *map(shell_word, (*self.prefix, *self.command))])


def choose(nsys: Path | None) -> Recorder:
    """The recorder where none was asked for: Nsight Systems if it is there."""
    return "nsys" if shutil.which(str(nsys or "nsys")) else "live"


def make_plan(
    target: Target,
    recorder: Recorder,
    folder: Path,
    *,
    steps: str | None = None,
    nodes: bool = False,
    nsys: Path | None = None,
    door: Path | None = None,
    pythonpath: str = "",
) -> Plan:
    """Put together how a command is recorded.

    Args:
        target: The command.
        recorder: Who is to record.
        folder: Where everything goes; it must not exist, or be empty.
        steps: `START:COUNT`, to record these steps only.
        nodes: Every kernel of a CUDA graph, not one row for its launch.
        nsys: The nsys to use.
        door: The folder to put on PYTHONPATH where profilemate is not installed beside vLLM.
        pythonpath: PYTHONPATH as it is.

    Raises:
        InputError: The steps cannot be read, or there is no such program.
        OutputError: The folder holds something.
        ToolError: There is no nsys.
    """
    if target.python is None and shutil.which(target.command[0]) is None:
        raise InputError(
            "There is no such program to record",
            path=target.command[0],
            hint="Give the command as you would type it:",
            command="profilemate run -- vllm serve MODEL",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            "The folder for the recording is not empty",
            path=folder,
            hint="Name another one with -o.",
        )
    plan = Plan(recorder, folder.absolute(), target.command)
    if target.vllm is None:
        plan.notes.append(
            "No vLLM was found in the Python that this command runs (or it is no Python program): "
            "if it starts vLLM by other ways, profilemate has to be installed there."
        )
    elif not target.annotates and door is not None:
        plan.env["PYTHONPATH"] = f"{door}:{pythonpath}" if pythonpath else str(door)
        if recorder != "live":  # the door alone would ask for a live session
            plan.env["PROFILEMATE_DOOR"] = "run"
    if steps is not None:
        plan.env["PROFILEMATE_STEPS"] = _checked(steps)
    if target.serves and target.shutdown_timeout and not target.has("--shutdown-timeout"):
        plan.command += ("--shutdown-timeout", str(GRACE_S))
    {"nsys": _nsys, "torch": _torch, "live": _live}[recorder](plan, target, nsys, nodes)
    return plan


def _checked(steps: str) -> str:
    start, colon, count = steps.partition(":")
    numbers = [start, count]
    if not colon or not all(n.isascii() and n.isdecimal() and int(n) > 0 for n in numbers):
        raise InputError(
            f"--steps {steps} is not START:COUNT",
            why="Both are numbers from 1: the first step to record, and how many.",
            hint="For 50 steps after a warm-up of 200: --steps 201:50",
        )
    return steps


def _nsys(plan: Plan, target: Target, nsys: Path | None, nodes: bool) -> None:
    found = shutil.which(str(nsys or "nsys"))
    if found is None:
        raise ToolError(
            "There is no nsys to record with",
            path=nsys,
            why="It is not on the PATH." if nsys is None else "",
            hint="Install Nsight Systems, name it with --nsys-path, or record without: --live",
        )
    report = plan.folder / "recording.nsys-rep"
    plan.prefix = (
        *(found, "profile", "-t", "nvtx,cuda", "--trace-fork-before-exec=true"),
        f"--cuda-graph-trace={'node' if nodes else 'graph'}",
        # Nothing is made of samples and context switches, and containers lack the rights for them.
        *("-s", "none", "--cpuctxsw=none"),
    )
    if _wants_cuda_profiler(target):
        # /start_profile then calls cudaProfilerStart, and the recording is of that time alone.
        plan.prefix += ("--capture-range=cudaProfilerApi", "--capture-range-end=stop")
        plan.notes.append(
            "The recording begins with /start_profile and ends with /stop_profile, because vLLM is "
            "told to use the CUDA profiler."
        )
    plan.prefix += ("-o", str(report.with_suffix("")))
    plan.traces.append(report)


def _wants_cuda_profiler(target: Target) -> bool:
    words = " ".join(target.command).replace('"', "").replace("'", "").replace(" ", "")
    return "profiler-config.profilercuda" in words or "{profiler:cuda" in words


def _torch(plan: Plan, target: Target, nsys: Path | None, nodes: bool) -> None:
    folder = plan.folder / "torch"
    plan.env["VLLM_TORCH_PROFILER_DIR"] = str(folder)  # up to vLLM 0.16
    plan.env["PROFILEMATE_TORCH"] = "1"
    if target.has("--profiler-config"):
        plan.notes.append(
            "You configure vLLM's profiler yourself; its traces are looked for in "
            f"{folder}: let torch_profiler_dir be that, or parse by hand."
        )
    elif target.profiler_config and target.serves:
        del plan.env["VLLM_TORCH_PROFILER_DIR"]
        config = {
            "profiler": "torch",
            "torch_profiler_dir": str(folder),
            # vLLM's default is on: it makes traces many times as large, and its end take minutes.
            "torch_profiler_with_stack": False,
        }
        plan.command += ("--profiler-config", json.dumps(config))
    elif target.profiler_config:
        plan.notes.append(
            "This vLLM takes its profiler from its configuration: give LLM(...) "
            f"profiler_config={{'profiler': 'torch', 'torch_profiler_dir': '{folder}'}}."
        )
    plan.notes.append(
        "vLLM's torch profiler records between /start_profile and /stop_profile (or "
        "LLM.start_profile() and stop_profile())."
    )
    plan.env["PROFILEMATE_SESSION"] = str(plan.session)
    plan.traces += [folder, plan.session]


def _live(plan: Plan, target: Target, nsys: Path | None, nodes: bool) -> None:
    plan.env["PROFILEMATE"] = "on"
    plan.env["PROFILEMATE_SESSION"] = str(plan.session)
    plan.traces.append(plan.session)
    plan.notes.append(
        "Without Nsight Systems or the torch profiler nobody records the GPU: durations of "
        "CUDA graphs are those of their launches on the host."
    )
