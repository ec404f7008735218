"""A real server with a live session: how it is started, and what its session must say."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import engine
import pandas as pd
from places import ROOT

FLUSHED_S = 0.6
"""Without work, everything has been given to the kernel in a third of this; see the sidecar."""

_PANDAS = ("pandas", "pandas.libs", "dateutil", "pytz", "tzdata", "six.py")


def pandas_folder(place: Path) -> Path:
    """A folder with pandas for an environment that has numpy, as `pip install pandas` makes it.

    The vLLM of the tests has none, because profilemate itself is not installed in it.
    """
    place.mkdir(exist_ok=True)
    for name in _PANDAS:
        spec = importlib.util.find_spec(name.partition(".")[0])
        if spec is None or spec.origin is None:
            continue
        packages = Path(spec.origin).parent
        source = (packages if packages.name != name.partition(".")[0] else packages.parent) / name
        if source.exists() and not (place / name).exists():
            (place / name).symlink_to(source)
    return place


@dataclass
class Live:
    """A server that ran with a live session and has ended.

    Attributes:
        place: Folder of the sessions.
        metrics: What vLLM counted, once nothing ran any more.
        log: What it wrote.
        code: Its exit code.
        seconds: From the signal to its end.
    """

    place: Path
    metrics: dict[str, float] = field(default_factory=dict)
    log: str = ""
    code: int | None = None
    seconds: float = 0.0
    session: Path = Path()

    def await_tables(self, timeout: float = 60) -> None:
        """Wait for the tables that appear by themselves."""
        deadline = time.monotonic() + timeout
        while "recording" in self.metadata:
            log = self.session / "parse.log"
            said = log.read_text() if log.exists() else "nothing"
            assert time.monotonic() < deadline, f"no tables in {self.session}; its log: {said}"
            time.sleep(0.1)

    @property
    def metadata(self) -> dict[str, Any]:
        """The session's metadata.json."""
        loaded: dict[str, Any] = json.loads((self.session / "metadata.json").read_text())
        return loaded

    def table(self, name: str) -> pd.DataFrame:
        """A table of the session, as a user reads it."""
        return pd.read_csv(self.session / f"{name}.csv")


def await_flushed(place: Path) -> None:
    """Wait until the sidecars in a folder grow no more, after the last request was answered."""
    sizes: dict[Path, int] | None = None
    while True:
        found = {p: p.stat().st_size for p in place.glob("session_*/markers/*")}
        if found == sizes:
            return
        sizes = found
        time.sleep(FLUSHED_S)


class LiveServer:
    """Options of a server, and one run of it."""

    def __init__(self, python: Path, model: Path, folder: Path) -> None:
        self.python, self.model, self.folder = python, model, folder
        self.pandas = pandas_folder(folder / "pandas")

    def server(self, name: str, env: dict[str, str], door: Path | None, **more: Any) -> Any:
        """A server that is not started yet."""
        workdir = self.folder / name
        workdir.mkdir()
        path = [self.pandas] if door is None else [door, self.pandas]
        python = more.pop("python", self.python)
        return engine.Server(
            python, self.model, workdir, env=env, pythonpath=path, stop_timeout=60, **more
        )

    def run(
        self,
        name: str,
        place: Path,
        number: int,
        *,
        env: dict[str, str] | None = None,
        door: Path | None = ROOT,
        whom: str = "",
    ) -> Live:
        """Serve the workload and end with a signal to one of the processes."""
        live = Live(place)
        before = set(place.glob("session_*"))
        with self.server(name, {"VLLM_PROFILING_DIR": str(place), **(env or {})}, door) as server:
            engine.workload(server)
            live.metrics = engine.metrics(server)
            live.session = next(iter(set(place.glob("session_*")) - before), Path())
            await_flushed(place)
            live.seconds = server.stop(number, server.pid_of(whom))
            live.code = server.run.process.returncode
        live.log = (self.folder / name / "server.log").read_text()
        return live


def check_totals(live: Live) -> None:
    """The tables against vLLM's own counters, to the unit."""
    m = live.metrics
    lookups = live.table("kv_prefix_cache")
    counted = lookups[~lookups["preempted"]]
    assert counted["tokens"].sum() == m["vllm:prefix_cache_queries_total"] > 0
    assert counted["hit_tokens"].sum() == m["vllm:prefix_cache_hits_total"] > 0
    # Whether requests meet, and one has to give way, is up to the machine's load.
    assert len(live.table("kv_preemptions")) == m["vllm:num_preemptions_total"]
    lives = live.table("kv_block_lifetimes")
    counted = lives[lives["counted_by_vllm"]]
    assert len(counted) == m["vllm:kv_block_lifetime_seconds_count"] > 0
    assert (lives["ended_by"] == "evicted").sum() == len(live.table("kv_cache_evictions")) > 0
    counts = live.metadata["events"]
    assert counts["sched.step"] == counts["step"] > 100
    dropped = live.metadata["dropped"]
    assert dropped == {
        "unknown_events": {},
        "broken_messages": 0,
        "lost_batches": {},
        "unfinished_messages": 0,
    }
    assert "a fault of profilemate" not in live.log
    assert {p["faults"] for p in live.metadata["processes"]} == {0}


def in_own_mounts(python: Path, script: Path, *commands: str) -> Path | None:
    """A stand-in for `python` that first mounts something, seen by it and its children only.

    None where this machine does not let us.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    quiet = subprocess.run(
        [unshare, "-rm", "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True, check=False
    )
    if quiet.returncode:
        return None
    inner = " && ".join((*commands, f'exec "{python}" "$@"'))
    script.write_text(f"#!/bin/sh\nexec {unshare} -rm sh -c '{inner}' sh \"$@\"\n")
    script.chmod(0o755)
    return script
