"""The session directory of a live run: made by the first process that has something to write.

Every process of a server has to find the same directory, two servers that start in the same second
have to find different ones, and a vLLM that is only asked for its `--help` must leave none behind.
So the first process names the run in its environment (`PROFILEMATE_RUN`), which its children
inherit; whoever writes first makes the directory and publishes it as a link with the run's name.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from profilemate.annotate.settings import Settings
from profilemate.schema.live import MARKERS, METADATA, RECORDING, RUN_LINK

RUN = "PROFILEMATE_RUN"
"""Names the run: set by its first process, inherited by those that multiprocessing starts."""

SESSION = "PROFILEMATE_SESSION"
"""The session directory, where somebody outside has chosen it."""

NO_SESSION = "none"
"""Value of `RUN` where no directory can be written: the first process has complained."""

_named: str | None = None
"""The run's name, if this process has named it."""


def begin(env: MutableMapping[str, str]) -> bool:
    """Name the run, or join the one that this process was started in; True if it is the first.

    A child of multiprocessing belongs to its parent's run. Any other process that inherits a name
    (a second server, started by a program that uses vLLM itself) begins a run of its own.
    """
    global _named
    inherited = env.get(RUN)
    decided = _named is not None and inherited in (_named, NO_SESSION)
    if inherited and (decided or _is_child()):
        return False
    _named = env[RUN] = f"{time.time_ns():x}-{os.getpid()}"
    return True


def _is_child() -> bool:
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        return True
    # A spawned child imports the program before it knows its parent, and a fork server has none:
    # `python -c "from multiprocessing.spawn import spawn_main; ..."`.
    return any(a.startswith("from multiprocessing.") for a in sys.orig_argv)


def began_ns(env: Mapping[str, str]) -> int:
    """When the run began, by the wall clock; now, if it has no name of ours."""
    try:
        return int(env.get(RUN, "").partition("-")[0], 16)
    except ValueError:
        return time.time_ns()


def usable(settings: Settings, env: MutableMapping[str, str]) -> str:
    """Why no session can be made here, or nothing. Children learn it from the environment."""
    if env.get(RUN) == NO_SESSION:
        return NO_SESSION
    base = _base(settings, env)
    # Nothing is made yet: most processes that import vLLM never run it.
    there = next((p for p in (base, *base.parents) if os.path.lexists(p)), base)
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return ""
    why = "cannot be written" if there.is_dir() else "is no directory"
    env[RUN] = NO_SESSION
    return (
        f"no live session in {base}, because {there} {why}. vLLM runs without; set PROFILEMATE_DIR "
        "(or VLLM_PROFILING_DIR) to another directory, for instance $HOME/vllm_profiling"
    )


def _base(settings: Settings, env: Mapping[str, str]) -> Path:
    """The folder that the session lies in."""
    # Absolute: a process may change its working directory.
    given = env.get(SESSION)
    place = Path(given).parent if given else Path(settings.directory)
    return place.expanduser().absolute()


def find(settings: Settings, env: Mapping[str, str]) -> Path | None:
    """The session directory of this run, None as long as nobody has written."""
    base = _base(settings, env)
    if given := env.get(SESSION):
        session = base / Path(given).name
        return session if (session / MARKERS).is_dir() else None
    try:
        return base / os.readlink(_link(base, env))
    except OSError:
        return None


def make(settings: Settings, env: Mapping[str, str]) -> Path:
    """The session directory of this run, made if nobody has made it yet.

    Raises:
        OSError: It cannot be made.
    """
    base = _base(settings, env)
    if given := env.get(SESSION):
        session = base / Path(given).name
        _fill(session, datetime.fromtimestamp(began_ns(env) / 1e9))
        return session
    found = find(settings, env)
    if found is not None:
        return found
    base.mkdir(parents=True, exist_ok=True)
    began = datetime.fromtimestamp(began_ns(env) / 1e9)
    session = _fresh(base, began)
    try:
        _fill(session, began)
        os.symlink(session.name, _link(base, env))
    except FileExistsError:  # another process of this run was quicker
        shutil.rmtree(session, ignore_errors=True)
        return base / os.readlink(_link(base, env))
    except OSError:
        shutil.rmtree(session, ignore_errors=True)
        raise
    return session


def _link(base: Path, env: Mapping[str, str]) -> Path:
    return base / f"{RUN_LINK}{env.get(RUN, os.getpid())}"


def _fresh(base: Path, began: datetime) -> Path:
    """Make a directory that nobody else has."""
    name = f"session_{began:%Y%m%d_%H%M%S}"
    for number in range(1, 10_000):
        session = base / (name if number == 1 else f"{name}_{number}")
        try:
            session.mkdir()
        except FileExistsError:
            continue
        return session
    raise FileExistsError(f"{base / name} and 10,000 more")


def _fill(session: Path, began: datetime) -> None:
    """What a session has from its first instant."""
    (session / MARKERS).mkdir(parents=True, exist_ok=True)
    facts = {
        "session_id": session.name,
        "start_time": began.astimezone().isoformat(),
        "output_dir": str(session),
        RECORDING: True,
        "files": [METADATA],
        "notes": [
            "The run goes on, or all of it was killed. `profilemate parse` with this directory "
            "writes the tables of what was recorded so far."
        ],
    }
    with suppress(FileExistsError), (session / METADATA).open("x", encoding="utf-8") as file:
        file.write(json.dumps(facts, indent=2) + "\n")
