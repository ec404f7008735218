"""The end of a live session: a short process of its own writes the tables.

It is started by the first process of the session that ends, does not keep that one from ending,
waits for the others to let go of their files, and then parses. A process that is killed starts
nothing; while one of the session ends in its own time, and the API server nearly always does, that
is enough.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path

import profilemate
from profilemate.annotate import session_dir
from profilemate.annotate.faults import Faults, say, shield
from profilemate.annotate.settings import NSYS, Settings
from profilemate.printable import shell_word
from profilemate.schema.live import LOCK, LOG, MARKERS, METADATA, RECORDING

_ROOT = Path(profilemate.__file__).parent.parent
# The process that we start ends at once, and its child is nobody's: vLLM kills a worker with all
# its descendants, and the tables are still being written then.
_CODE = (
    "import os, sys; os.fork() and os._exit(0); sys.path.append(sys.argv[2]); "
    "from profilemate.parse.finalise import main; "
    "sys.exit(main(sys.argv[1]))"
)


def at_exit(settings: Settings, env: Mapping[str, str]) -> None:
    """Start the writing of the tables when this process ends.

    Called again by whatever writes: multiprocessing forgets what was registered before a child's
    own work begins.
    """
    begin = shield("the end of the live session", Faults(), start)
    # Last of all, after children were waited for.
    Finalize(None, begin, args=(settings, env), exitpriority=-100)


_started_by = 0  # process number: a forked child has not started anything yet


def start(settings: Settings, env: Mapping[str, str]) -> None:
    """Start it now, unless it runs already or has nothing to do; once per process."""
    global _started_by
    if _started_by == os.getpid():
        return
    _started_by = os.getpid()
    session = session_dir.find(settings, env)
    if session is None or not needed(session):
        return
    if os.getpid() == 1:
        if _is_first(session):
            say(f"the run's markers are in {session}; this makes the tables:")
            say(f"profilemate parse {shell_word(session)}", tag="  ")
        return
    if not sys.executable or importlib.util.find_spec("pandas") is None:
        if _is_first(session):
            say(
                f"the run's markers are in {session}; the tables need pandas, which is not "
                "installed here. Wherever profilemate is installed this makes them:"
            )
            say(f"profilemate parse {shell_word(session)}", tag="  ")
        return
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    again = (session / LOG).exists()
    lock = os.open(session / LOCK, flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _spawn(session, env, lock)
    except BlockingIOError:  # another process of the session has started it
        return
    finally:
        os.close(lock)
    if again:  # another one has said it, and was not the last to end
        return
    say(f"live session: {session} (its tables are being written, see {LOG} there)")


def _is_first(session: Path) -> bool:
    """Whether no process of the session has come to its end yet: what it says is said once."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        os.close(os.open(session / LOCK, flags, 0o600))
    except OSError:
        return False
    return True


def needed(session: Path) -> bool:
    """Whether there is anything that the tables do not have yet."""
    newest = max((file.stat().st_mtime_ns for file in (session / MARKERS).iterdir()), default=0)
    with suppress(OSError, ValueError):
        facts = json.loads((session / METADATA).read_bytes())
        if not facts.get(RECORDING) and (session / METADATA).stat().st_mtime_ns > newest:
            return False
    return newest > 0


def _spawn(session: Path, env: Mapping[str, str], lock: int) -> None:
    """Start the process that writes the tables; `lock` is the open file that becomes its own."""
    # No recorder follows it there, and it annotates nothing.
    removed = {*NSYS, session_dir.RUN, *(("LD_PRELOAD",) if any(env.get(n) for n in NSYS) else ())}
    inherited = {name: value for name, value in env.items() if name not in removed}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(session / LOG, flags, 0o600), "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(session), str(_ROOT)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**inherited, **threads, "PROFILEMATE": "off"},
            start_new_session=True,
            pass_fds=(lock,),  # the lock is its own from here on
        )
    process.returncode = 0  # nobody waits for it, and Python need not complain of that
