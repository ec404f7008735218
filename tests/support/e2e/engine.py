"""Drive a real vLLM on the CPU, alone or under a real ``nsys``, and read what it counts itself.

A plain module without pytest in it, for the end-to-end tests and for ``scripts/record``; nothing
but the standard library. ``inside.py`` beside it is the part that vLLM's own interpreter runs,
``supervise.py`` the part that keeps processes from being left behind.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from supervise import EngineError, Run

__all__ = [
    "NO_DOOR",
    "EngineError",
    "OfflineResult",
    "Request",
    "Run",
    "Server",
    "WorkloadResult",
    "make_tiny_model",
    "metrics",
    "offline_args",
    "parse_metrics",
    "phases",
    "run_offline",
    "workload",
]

HOST = "127.0.0.1"
API_SERVER = "vllm.entrypoints.openai.api_server"
MODEL_NAME = "tiny"
INSIDE = Path(__file__).resolve().with_name("inside.py")

BLOCK_SIZE = 32
MAX_MODEL_LEN = 512
MAX_NUM_SEQS = 16
NUM_BLOCKS = 40
"""Few enough that sixteen growing requests do not fit: see ``phases``."""

NO_DOOR = {"PROFILEMATE": "off"}
"""For a script that annotates by itself: the clone's root on `PYTHONPATH` is a door otherwise."""

ENGINE_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


def make_tiny_model(directory: Path, vllm_python: Path) -> Path:
    """Write a two-layer Llama without weights into ``directory`` and return it.

    ``--load-format dummy`` makes the weights up, so a configuration and a tokenizer are the whole
    model. The tokenizer is byte-level without merges: one ASCII character is one token, which lets
    a test count tokens by counting characters.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = [str(vllm_python), str(INSIDE), "model", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EngineError(f"could not write the model to {directory}:\n{done.stderr[-4000:]}")
    return directory


# --- the requests ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One completion: ``prompt`` is ASCII, so its length is its number of tokens."""

    prompt: str
    max_tokens: int


def phases(seed: int = 7) -> list[list[Request]]:
    """Return the requests of one run: phase after phase, the requests of a phase all at once.

    With ``NUM_BLOCKS`` blocks of ``BLOCK_SIZE`` tokens every kind of KV event must occur:

    * *shared*: five full blocks of common prefix with different ends. After the first request
      these five are prefix hits.
    * *crowd*: sixteen prompts of two blocks that grow to six. Sixteen times two fit, sixteen times
      six do not, so the scheduler has to preempt, and what comes back finds part of itself cached.
    * *long*: prompts of up to fourteen blocks, all different: they evict what was cached before.
    * *again*: the shared prefix once more, of which by now little or nothing is left.
    """
    rng = random.Random(seed)

    def text(length: int) -> str:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=length))

    prefix = text(5 * BLOCK_SIZE)
    shared = [Request(prefix + text(10 + 7 * i), 24) for i in range(8)]
    crowd = [Request(text(2 * BLOCK_SIZE - 4), 4 * BLOCK_SIZE) for _ in range(MAX_NUM_SEQS)]
    long = [Request(text(300 + 12 * i), 16) for i in range(12)]
    again = [Request(prefix + text(10 + 7 * i), 24) for i in range(8)]
    return [shared[:1], shared[1:], crowd, long, again[:1], again[1:]]


@dataclass(frozen=True)
class WorkloadResult:
    """What came back: enough to see that every request was answered in full."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float


# --- the server -----------------------------------------------------------------------------------


class Server:
    """vLLM's OpenAI server, ready when entered, gone (and recorded, if asked) when left.

    ``nsys`` is the program to record with; the report is then at ``report`` after the exit.
    ``env`` and ``pythonpath`` are added to a bare environment, ``extra_args`` to the command. A
    ``wrapper`` stands in front of the command, and is what is told to end.
    """

    def __init__(
        self,
        vllm_python: Path,
        model: Path,
        workdir: Path,
        *,
        num_blocks: int = NUM_BLOCKS,
        nsys: Path | None = None,
        env: Mapping[str, str] | None = None,
        pythonpath: Sequence[Path] = (),
        extra_args: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        ready_timeout: float = 240,
        stop_timeout: float = 90,
    ) -> None:
        self.port = _free_port()
        self._timeouts = (ready_timeout, stop_timeout)
        arguments = f"""
            --served-model-name {MODEL_NAME} --load-format dummy --max-model-len {MAX_MODEL_LEN}
            --block-size {BLOCK_SIZE} --num-gpu-blocks-override {num_blocks}
            --max-num-seqs {MAX_NUM_SEQS} --enforce-eager
            --kv-cache-metrics --kv-cache-metrics-sample 1.0 --host {HOST} --port {self.port}
        """.split()
        self._wrapped = bool(wrapper)
        self._command = [*wrapper, str(vllm_python), "-m", API_SERVER, "--model", str(model)]
        self._command += [*arguments, *extra_args]
        # What vLLM learns about the model stays with the model: it saves the next start 8 s.
        own = {**ENGINE_ENVIRONMENT, "VLLM_CACHE_ROOT": str(model / "cache")}
        self._start: Callable[[], Run] = lambda: Run(
            self._command,
            workdir=workdir,
            log=workdir / "server.log",
            nsys=nsys,
            env={**own, **(env or {})},
            pythonpath=pythonpath,
        )
        self._run: Run | None = None
        self._ended = False

    @property
    def run(self) -> Run:
        """The running command; only inside the ``with`` block and after it."""
        if self._run is None:
            raise EngineError("the server has not been started: use it in a with statement")
        return self._run

    @property
    def report(self) -> Path:
        """The recording that nsys wrote."""
        if self.run.report is None:
            raise EngineError("this server was not started under nsys")
        return self.run.report

    def __enter__(self) -> Self:
        self._run = self._start()
        try:
            self._await_ready(time.monotonic() + self._timeouts[0])
        except BaseException:
            self._run.end()
            raise
        return self

    def stop(self, number: int, pid: int | None = None) -> float:
        """Send a signal, to the server itself or another of its processes; wait for the server.

        Returns the seconds that it took to end; its exit code is `run.process.returncode`.
        """
        began = time.monotonic()
        os.kill(self._server_pid() if pid is None else pid, number)
        self._ended = True
        self.run.wait(self._timeouts[1], f"ending the server with signal {number}")
        return time.monotonic() - began

    def pid_of(self, title: str) -> int:
        """The process that vLLM has given this title: EngineCore, Worker, or empty for itself."""
        if not title:
            return self._server_pid()
        found = [p.pid for p in self.run.members() if p.arguments[0].startswith(f"VLLM::{title}")]
        if len(found) != 1:
            raise EngineError(f"expected one {title}, found {found}.{self.run.tail()}")
        return found[0]

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if self._ended:
            self.run.end()
            return
        try:
            # Not to nsys: it would end the recording first and cut off vLLM's own ending.
            pid = self.run.process.pid if self._wrapped else self._server_pid()
            os.kill(pid, signal.SIGINT)
            self.run.wait(self._timeouts[1], "stopping the server")
        except (EngineError, ProcessLookupError) as problem:
            if error is None:
                raise EngineError(f"the server did not end as it should: {problem}") from problem
        finally:
            self.run.end()

    def _server_pid(self) -> int:
        """Find Python itself: the one with our arguments whose parent does not have the same.

        nsys and its launcher carry the same words further back in their own command lines, and a
        forked child of the server has the very same command line.
        """
        found = {p.pid: p for p in self.run.members() if p.arguments[1:3] == ("-m", API_SERVER)}
        top = [pid for pid, process in found.items() if process.parent not in found]
        if len(top) != 1:
            raise EngineError(f"expected one server process, found {top}.{self.run.tail()}")
        return top[0]

    def _await_ready(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if self.run.process.poll() is not None:
                raise EngineError(f"vLLM ended while starting up.{self.run.tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get("/health")[0] == 200:
                    return
            time.sleep(0.2)
        raise EngineError(f"vLLM was not ready after {self._timeouts[0]:.0f} s.{self.run.tail()}")

    def get(self, path: str, body: object = None, timeout: float = 120) -> tuple[int, str]:
        """Send one request (a POST if there is a body) and return status and text."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        with contextlib.closing(connection):
            if body is None:
                connection.request("GET", path)
            else:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read().decode()


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


# --- what it counts, and giving it something to count ---------------------------------------------

_SAMPLE = re.compile(r"^(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)$")


def parse_metrics(text: str) -> dict[str, float]:
    """Return counters, gauges and the ``_sum`` and ``_count`` of histograms, added over labels.

    Left out are the buckets and the times at which a counter was created.
    """
    result: dict[str, float] = {}
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample is None or sample["name"].endswith("_created"):
            continue
        if not re.search(r'(?:^|,)le="', sample["labels"] or ""):
            result[sample["name"]] = result.get(sample["name"], 0.0) + float(sample["value"])
    return result


def metrics(server: Server, timeout: float = 10) -> dict[str, float]:
    """Return what the server counted, once it has finished counting.

    An answer leaves the server before its last step is added to the counters. So this waits until
    nothing runs or waits and two readings in a row agree.
    """
    deadline = time.monotonic() + timeout
    before: dict[str, float] = {}
    while time.monotonic() < deadline:
        everything = parse_metrics(server.get("/metrics")[1])
        now = {name: value for name, value in everything.items() if name.startswith("vllm:")}
        busy = now.get("vllm:num_requests_running", 1) + now.get("vllm:num_requests_waiting", 1)
        if not busy and now == before:
            return now
        before = now
        time.sleep(0.2)
    raise EngineError(f"the server's counters did not come to rest in {timeout:.0f} s")


def workload(server: Server, requests: Sequence[Sequence[Request]] | None = None) -> WorkloadResult:
    """Send the requests (``phases()`` unless told), each phase from as many threads at once.

    What is sent is always the same; which of a phase's requests arrives first is not, and so the
    exact counts differ from run to run. They are to be compared within a run.
    """
    began = time.monotonic()
    usages: list[tuple[int, int]] = []
    for phase in requests if requests is not None else phases():
        with ThreadPoolExecutor(max_workers=len(phase)) as pool:
            usages += pool.map(lambda request: _complete(server, request), phase)
    prompts, completions = (sum(column) for column in zip(*usages, strict=True))
    return WorkloadResult(len(usages), prompts, completions, time.monotonic() - began)


def _complete(server: Server, request: Request) -> tuple[int, int]:
    body = {
        "model": MODEL_NAME,
        "prompt": request.prompt,
        "max_tokens": request.max_tokens,
        "temperature": 0,
        # The model is random: without this its answers would end wherever chance has it.
        "ignore_eos": True,
    }
    status, text = server.get("/v1/completions", body)
    if status != 200:
        raise EngineError(f"a completion failed with status {status}: {text[:500]}")
    usage = json.loads(text)["usage"]
    if usage["completion_tokens"] != request.max_tokens:
        raise EngineError(f"a completion has {usage['completion_tokens']} tokens: {request}")
    return usage["prompt_tokens"], usage["completion_tokens"]


# --- without a server -----------------------------------------------------------------------------


@dataclass(frozen=True)
class OfflineResult:
    """What one in-process run left: its output, and the recording if there was to be one."""

    log: Path
    report: Path | None


def run_offline(
    vllm_python: Path,
    script_args: Sequence[str],
    *,
    workdir: Path,
    nsys: Path | None = None,
    env: Mapping[str, str] | None = None,
    pythonpath: Sequence[Path] = (),
    timeout: float = 300,
) -> OfflineResult:
    """Run a script with the engine in the script's own process; raise if it fails.

    ``script_args`` are the script and its arguments. A script of one's own can import ``inside``
    and ``engine``, which are put on its path; ``offline_args`` gives the ready-made one.
    """
    run = Run(
        [str(vllm_python), *script_args],
        workdir=workdir,
        log=workdir / "offline.log",
        nsys=nsys,
        env={**ENGINE_ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", **(env or {})},
        pythonpath=[*pythonpath, INSIDE.parent],
    )
    try:
        run.wait(timeout, "the in-process run")
        if run.process.returncode != 0:
            raise EngineError(f"the script ended with {run.process.returncode}.{run.tail()}")
    finally:
        run.end()
    return OfflineResult(run.log, run.report)


def offline_args(model: Path, result: Path, num_blocks: int = NUM_BLOCKS) -> list[str]:
    """Return ``script_args`` for the same workload; ``result`` gets vLLM's counters as JSON."""
    return [str(INSIDE), "offline", str(model), str(result), str(num_blocks)]
