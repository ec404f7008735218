"""Recordings that are read by the workers of a Dask cluster, which somebody else has started."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import profilemate
from profilemate.errors import InputError, ProfilemateError, ToolError, missing_extra
from profilemate.parse.ingest.read_one import Read, Task
from profilemate.parse.recording.progress import Progress
from profilemate.parse.recording.worker_processes import Share

_CONNECT_S = 15


def _read(task: Task, version: str) -> Read | ProfilemateError:
    """What a worker does: the same as a process of ours."""
    if profilemate.__version__ != version:
        return ToolError(
            f"A worker of the cluster has profilemate {profilemate.__version__}",
            why=f"This one is {version}: what they give each other may differ.",
            hint=f"Install profilemate {version} there.",
        )
    try:
        return task.run()
    except InputError as e:
        e.hint = e.hint or "It was a worker that read it: the path must be the same there."
        return e
    except ProfilemateError as e:
        return e


def read_on(address: str, tasks: Sequence[Task], progress: Progress) -> list[Read]:
    """Read recordings on a cluster, in their order.

    Args:
        address: Of the scheduler, for instance `tcp://10.0.0.1:8786`.
        tasks: What to read; its workers must see the same paths.
        progress: Told how many are done.

    Raises:
        ProfilemateError: Dask is not installed, the scheduler does not answer, or a recording
            cannot be read.
    """
    distributed = _distributed()
    try:
        _knock(address)
        client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as e:
        raise ToolError(
            f"The Dask scheduler at {address} does not answer",
            why=str(e) or type(e).__name__,
            hint="Is it running, and can it be reached from here? Start one:",
            command="dask scheduler",
        ) from e
    with client:
        # Whoever started the cluster has shared out the cores: a task has one of its worker's.
        share = Share(cores=1, memory=0)
        absolute = [replace(task, path=task.path.resolve(), share=share) for task in tasks]
        futures = [
            client.submit(_read, task, profilemate.__version__, pure=False) for task in absolute
        ]
        try:
            done: dict[Any, Read] = {}
            progress(f"reading {len(tasks)} recordings", 0, len(tasks))
            for future in distributed.as_completed(futures, loop=client.loop):
                done[future.key] = _result(future, tasks[futures.index(future)])
                progress(f"reading {len(tasks)} recordings", len(done), len(tasks))
        finally:
            if unfinished := [future for future in futures if not future.done()]:
                client.cancel(unfinished)
        return [done[future.key] for future in futures]


def _knock(address: str) -> None:
    """Connect and hang up: Dask's client takes half a minute to say that nobody is there.

    Raises:
        OSError: Nobody is.
        ValueError: It is no address.
    """
    from distributed.comm.addressing import get_address_host_port, parse_address

    scheme, _ = parse_address(address)
    if scheme in ("tcp", "tls"):
        socket.create_connection(get_address_host_port(address), timeout=_CONNECT_S).close()


def _result(future: Any, task: Task) -> Read:
    error = future.exception()
    if error is not None:
        raise ToolError(
            "A worker of the cluster could not do its work",
            path=task.path,
            why=f"{type(error).__name__}: {error}",
            hint=f"Is profilemate {profilemate.__version__} installed on every worker?",
        ) from error
    outcome: Read | ProfilemateError = future.result()
    if isinstance(outcome, ProfilemateError):
        raise outcome
    return outcome


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as e:
        raise ToolError(
            "Reading on a cluster needs Dask",
            why=str(e),
            hint="Install what it needs:",
            command=missing_extra("dask"),
        ) from e
    return distributed
