"""What the environment asks for.

Our own names begin with `PROFILEMATE_`: vLLM warns of `VLLM_` names that it does not know. The
`VLLM_PROFILING_*` names of the tool that profilemate grew out of are honoured as aliases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

Mode = Literal["auto", "on", "off"]

DEFAULT_DIR = "/tmp/vllm_profiling"
DEFAULT_INTERVAL = 100
DEFAULT_MAX_MB = 2048

DIR = ("PROFILEMATE_DIR", "VLLM_PROFILING_DIR")
VERBOSE = ("PROFILEMATE_VERBOSE", "VLLM_PROFILING_VERBOSE")
STEPS = "PROFILEMATE_STEPS"
INTERVAL = ("PROFILEMATE_LOG_INTERVAL", "VLLM_PROFILING_LOG_INTERVAL")


# Both Nsight Systems versions tried (2022.4, 2023.4) set these in every process they follow.
NSYS = ("NSYS_PROFILING_SESSION_ID", "NVTX_INJECTION64_PATH", "NVTX_INJECTION32_PATH")

# vLLM up to 0.16 turns its torch profiler on by a variable; later ones by their configuration.
TORCH_PROFILER = ("VLLM_TORCH_PROFILER_DIR",)

DOOR = "PROFILEMATE_DOOR"
"""Set by our `sitecustomize`, so that child processes know that this door was taken. Another value
is that of `profilemate run`, which opens the door for another recorder than a live session."""

SITECUSTOMIZE = "sitecustomize"

TORCH = "PROFILEMATE_TORCH"
"""Set by ourselves when vLLM's configuration has a torch profiler: its processes to come have the
configuration only when the hooks should be in already."""

NOBODY = (
    "no recorder in the environment; as soon as vLLM's configuration has a torch profiler "
    "(--profiler-config), yes (PROFILEMATE=on to annotate all the same)"
)


class Steps(NamedTuple):
    """Steps that are asked for: the number of the first, from 1, and how many."""

    first: int
    number: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings, and the reason why they ask for annotation or do not.

    Attributes:
        mode: `PROFILEMATE`: auto (patch only where a recorder is), on, or off.
        graphs: `PROFILEMATE_GRAPHS`: the CUDA graph hooks.
        kv: `PROFILEMATE_KV`: the KV cache hooks.
        launches: `PROFILEMATE_LAUNCHES`: a range for every launch of a CUDA graph, inside a step
            too, not only their number.
        verbose: `PROFILEMATE_VERBOSE`: say on stderr what is being done.
        directory: `PROFILEMATE_DIR`: where live sessions go.
        interval: `PROFILEMATE_LOG_INTERVAL`: operations between two flushes of a live session.
        gpu_timing: `PROFILEMATE_GPU_TIMING`: time the graphs of each step with CUDA events.
        gzip: `PROFILEMATE_GZIP`: pack the files of a live session.
        max_mb: `PROFILEMATE_MAX_MB`: megabytes that each process may write into a live session;
            the latest are kept. 0 for no end.
        steps: `PROFILEMATE_STEPS`: the only steps to record, `start:count`; None for all.
        torch: A torch profiler is configured.
        live: A live session was asked for: profilemate records by itself.
        wanted: Whether vLLM is to be annotated in this process.
        reason: Why, or why not.
        complaints: Values that could not be understood; their defaults are used.
    """

    mode: Mode = "auto"
    graphs: bool = True
    kv: bool = True
    launches: bool = False
    verbose: bool = False
    directory: str = DEFAULT_DIR
    interval: int = DEFAULT_INTERVAL
    gpu_timing: bool = False
    gzip: bool = False
    max_mb: int = DEFAULT_MAX_MB
    steps: Steps | None = None
    torch: bool = False
    live: bool = False
    wanted: bool = False
    reason: str = NOBODY
    complaints: tuple[str, ...] = field(default=())

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read the environment. Never raises: this runs inside the engine."""
        complaints: list[str] = []
        mode = env.get("PROFILEMATE", "auto").strip().lower() or "auto"
        if mode not in ("auto", "on", "off"):
            complaints.append(f"PROFILEMATE={mode!r} is none of auto, on, off: taken as auto")
            mode = "auto"
        wanted, reason = _wanted(cast(Mode, mode), env)
        return cls(
            mode=cast(Mode, mode),
            graphs=_switch(env, ("PROFILEMATE_GRAPHS",), True, complaints),
            kv=_switch(env, ("PROFILEMATE_KV",), True, complaints),
            launches=_switch(env, ("PROFILEMATE_LAUNCHES",), False, complaints),
            verbose=_switch(env, VERBOSE, False, complaints),
            directory=_first(env, DIR)[1] or DEFAULT_DIR,
            interval=_number(env, INTERVAL, DEFAULT_INTERVAL, 1, complaints),
            gpu_timing=_switch(env, ("PROFILEMATE_GPU_TIMING",), False, complaints),
            gzip=_switch(env, ("PROFILEMATE_GZIP",), False, complaints),
            max_mb=_number(env, ("PROFILEMATE_MAX_MB",), DEFAULT_MAX_MB, 0, complaints),
            steps=_steps(env, complaints),
            torch=mode != "off" and any(env.get(name) for name in (*TORCH_PROFILER, TORCH)),
            live=mode != "off" and (mode == "on" or _live(env) is not None),
            wanted=wanted,
            reason=reason,
            complaints=tuple(complaints),
        )


def recorder(env: Mapping[str, str]) -> str | None:
    """The variable that shows that Nsight Systems follows this process, or None."""
    return next((name for name in NSYS if env.get(name)), None)


def _wanted(mode: Mode, env: Mapping[str, str]) -> tuple[bool, str]:
    if mode != "auto":
        return mode == "on", f"PROFILEMATE={mode}"
    if name := recorder(env):
        return True, f"Nsight Systems is attached ({name} is set)"
    if env.get(TORCH):
        return True, "a torch profiler is in vLLM's configuration"
    for name in TORCH_PROFILER:
        if env.get(name):
            return True, f"{name} is set"
    why = _live(env)
    return why is not None, why or NOBODY


def _live(env: Mapping[str, str]) -> str | None:
    """What asks for a live session, None if nothing does."""
    for name in (*DIR, VERBOSE[1], INTERVAL[1]):
        if env.get(name):
            return f"{name} is set"
    taken = env.get(DOOR) == SITECUSTOMIZE
    return "profilemate's sitecustomize is on PYTHONPATH" if taken else None


def _first(env: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str]:
    return next(((n, env[n].strip()) for n in names if env.get(n, "").strip()), (names[0], ""))


def _switch(
    env: Mapping[str, str], names: tuple[str, ...], default: bool, complaints: list[str]
) -> bool:
    name, text = _first(env, names)
    if not text:
        return default
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    complaints.append(f"{name}={text!r} is neither 1 nor 0: taken as {int(default)}")
    return default


def _number(
    env: Mapping[str, str],
    names: tuple[str, ...],
    default: int,
    least: int,
    complaints: list[str],
) -> int:
    """The number that the first of these variables holds, from `least` on, else `default`."""
    name, text = _first(env, names)
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        complaints.append(f"{name}={text!r} is no number from {least} on: taken as {default}")
        return default
    return value


def _steps(env: Mapping[str, str], complaints: list[str]) -> Steps | None:
    text = env.get(STEPS, "").strip()
    first, colon, count = text.partition(":")
    if not text:
        return None
    digits = first.isascii() and first.isdecimal() and count.isascii() and count.isdecimal()
    if not colon or not digits or int(first) < 1 or int(count) < 1:
        complaints.append(
            f"{STEPS}={text!r} is not start:count, two numbers from 1 on: every step is taken"
        )
        return None
    return Steps(int(first), int(count))
