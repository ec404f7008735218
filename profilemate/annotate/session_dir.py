"""The session directory of a live run: made by the first process that has something to write.

Every process of a server has to find the same directory, two servers that start in the same second
have to find different ones, and a vLLM that is only asked for its `--help` must leave none behind.
So the first process names the run in its environment (`PROFILEMATE_RUN`), which its children
inherit; whoever writes first makes the directory and publishes it as a link with the run's name.
"""

from __future__ import annotations

import json
import os
import stat
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
    places = (base, *base.parents) if base.is_absolute() else ()
    there = next((p for p in places if os.path.lexists(p)), base)
    why = _unusable(there)
    if not why:
        return ""
    env[RUN] = NO_SESSION
    return (
        f"no live session in {base}, because {there} {why}. vLLM runs without; set PROFILEMATE_DIR "
        "(or VLLM_PROFILING_DIR) to another directory, for instance $HOME/vllm_profiling"
    )


def _unusable(folder: Path) -> str:
    """Why no session may lie in this folder, or nothing.

    In a folder of somebody else's a session could be put where the run did not mean it to be: the
    folder is ours, or root's and, where everybody may write, sticky, as /tmp is. In one of ours the
    session itself is asked for its owner, see `_is_own`.
    """
    if not folder.is_absolute():
        return "begins with the home folder of nobody here"
    if not folder.is_dir():
        return "is no directory"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "cannot be written"
    # A link is judged as what it is: whoever made it may make it lead elsewhere.
    for seen in (os.lstat(folder), os.stat(folder)):
        if seen.st_uid not in (os.geteuid(), 0):
            return "belongs to another user"
    ours = seen.st_uid == os.geteuid()
    if not ours and seen.st_mode & stat.S_IWOTH and not seen.st_mode & stat.S_ISVTX:
        return "can be written by everybody and is not sticky"
    return ""


def _is_own(session: Path) -> bool:
    """Whether a session directory is one that this user made, and no link."""
    with suppress(OSError):
        seen = os.lstat(session)
        return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.geteuid()
    return False


def _base(settings: Settings, env: Mapping[str, str]) -> Path:
    """The folder that the session lies in; one that is not absolute cannot be had."""
    # Absolute: a process may change its working directory.
    given = env.get(SESSION)
    place = Path(given).parent if given else Path(settings.directory)
    try:
        return place.expanduser().absolute()
    except RuntimeError:  # `~` of a user without a home, as in many a container
        return place


def find(settings: Settings, env: Mapping[str, str]) -> Path | None:
    """The session directory of this run, None as long as nobody has written."""
    base = _base(settings, env)
    if given := env.get(SESSION):
        session = base / Path(given).name
        return session if (session / MARKERS).is_dir() and _is_own(session) else None
    try:
        session = base / os.readlink(_link(base, env))
    except OSError:
        return None
    return session if _is_own(session) else None


def make(settings: Settings, env: Mapping[str, str]) -> Path:
    """The session directory of this run, made if nobody has made it yet.

    Raises:
        OSError: It cannot be made.
    """
    base = _base(settings, env)
    if not base.is_absolute():
        raise FileNotFoundError(f"{base} {_unusable(base)}")
    if given := env.get(SESSION):
        session = base / Path(given).name
        _fill(session, datetime.fromtimestamp(began_ns(env) / 1e9))
        return session
    found = find(settings, env)
    if found is not None:
        return found
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    if why := _unusable(base):  # somebody else was quicker to make it
        raise PermissionError(f"{base} {why}")
    began = datetime.fromtimestamp(began_ns(env) / 1e9)
    session = _fresh(base, began)
    try:
        _fill(session, began)
        os.symlink(session.name, _link(base, env))
    except FileExistsError:  # another process of this run was quicker
        _remove(session)
        return base / os.readlink(_link(base, env))
    except OSError:
        _remove(session)
        raise
    return session


def discard(settings: Settings, env: Mapping[str, str]) -> None:
    """Remove the session directory of this run as long as nobody has written anything.

    One that somebody outside has chosen stays.
    """
    if env.get(SESSION):
        return
    session = find(settings, env)
    if session is not None and _remove(session):
        with suppress(OSError):
            os.unlink(_link(_base(settings, env), env))


def _remove(session: Path) -> bool:
    """Remove a session without markers, by its names: to list it may need what ran out."""
    try:
        with suppress(FileNotFoundError):
            os.rmdir(session / MARKERS)
        with suppress(FileNotFoundError):
            os.unlink(session / METADATA)
        os.rmdir(session)
    except OSError:
        return False
    return True


def _link(base: Path, env: Mapping[str, str]) -> Path:
    return base / f"{RUN_LINK}{env.get(RUN, os.getpid())}"


def _fresh(base: Path, began: datetime) -> Path:
    """Make a directory that nobody else has."""
    name = f"session_{began:%Y%m%d_%H%M%S}"
    for number in range(1, 10_000):
        session = base / (name if number == 1 else f"{name}_{number}")
        try:
            session.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return session
    raise FileExistsError(f"{base / name} and 10,000 more")


def _fill(session: Path, began: datetime) -> None:
    """What a session has from its first instant; nobody else may read it."""
    session.mkdir(mode=0o700, parents=True, exist_ok=True)
    (session / MARKERS).mkdir(mode=0o700, exist_ok=True)
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
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with suppress(FileExistsError):
        metadata = os.open(session / METADATA, flags, 0o600)
        with os.fdopen(metadata, "w", encoding="utf-8") as file:
            file.write(json.dumps(facts, indent=2) + "\n")
