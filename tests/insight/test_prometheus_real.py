"""Exported metrics as Prometheus' own programs see them: promtool's lint, and a real scrape."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from csv_metrics import counted, lead, session_id
from places import EXPECTED
from recorded import leave_out, real_traces

from profilemate.insight.metrics.export import FORMATS, export
from profilemate.parse.pipeline import parse_session

pytestmark = pytest.mark.real

CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
{jobs}
"""
JOB = """
  - job_name: {name}
    metrics_path: /{file}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def program(variable: str) -> str:
    named = os.environ.get(variable)
    if not named:
        leave_out(f"{variable} is not set")
    return str(named)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    gpu = tmp_path_factory.mktemp("gpu") / "session"
    parse_session(
        [real_traces() / "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz"], gpu
    )
    return {"cpu": EXPECTED, "gpu": gpu}


@pytest.mark.parametrize("which", ["cpu", "gpu"])
def test_promtool_finds_nothing_to_say(which: str, sessions: dict[str, Path]) -> None:
    text = export(sessions[which], "prometheus")
    command = [program("PROFILEMATE_TEST_PROMTOOL"), "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # The lint does work: a name against the conventions is told.
    bad = text + "# HELP profilemate_x_ms x\n# TYPE profilemate_x_ms counter\nprofilemate_x_ms 1\n"
    done = subprocess.run(command, input=bad, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "profilemate_x_ms" in done.stderr


class Files(SimpleHTTPRequestHandler):
    """A file server; `.om` is served as OpenMetrics, which makes Prometheus parse it strictly."""

    extensions_map = {  # noqa: RUF012
        ".om": "application/openmetrics-text; version=1.0.0; charset=utf-8",
        "": "text/plain; version=0.0.4",
    }

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ask(port: int, path: str, **query: str) -> Any:
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


@contextmanager
def prometheus(folder: Path, jobs: str) -> Iterator[int]:
    (folder / "prometheus.yml").write_text(CONFIG.format(jobs=jobs))
    port = free_port()
    command = [
        program("PROFILEMATE_TEST_PROMETHEUS"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield port
        finally:
            process.terminate()
            process.wait(30)


def wait_for_targets(port: int, count: int, log: Path) -> list[dict[str, Any]]:
    last: Any = None
    for _ in range(120):
        try:
            last = ask(port, "targets")["activeTargets"]
        except (urllib.error.URLError, ConnectionError):
            last = None
        if last and len(last) == count and all(t["health"] != "unknown" for t in last):
            return list(last)
        time.sleep(0.5)
    pytest.fail(f"no scrape: {last}\n{log.read_text()[-2000:]}")


def test_a_real_prometheus_scrapes_it(tmp_path: Path, sessions: dict[str, Path]) -> None:
    served = tmp_path / "www"
    jobs, suffixes = "", {"openmetrics": "om", "prometheus": "txt"}
    assert set(suffixes) == set(FORMATS)
    with serving(served) as files:
        for which, folder in sessions.items():
            for name, suffix in suffixes.items():
                export(folder, name, served / f"{which}.{suffix}")
                jobs += JOB.format(name=f"{which}-{name}", file=f"{which}.{suffix}", port=files)
        with prometheus(tmp_path, jobs) as port:
            targets = wait_for_targets(port, 4, tmp_path / "log")
            assert {t["labels"]["job"]: t["lastError"] for t in targets} == {
                f"{which}-{name}": "" for which in sessions for name in suffixes
            }
            for which, folder in sessions.items():
                wanted = counted(folder, session_id(folder), lead(folder))
                assert len(wanted) > 10
                for name in suffixes:
                    _compare(port, f"{which}-{name}", wanted)
            said = ask(port, "metadata")["profilemate_kv_block_lifetime_seconds"]
            # The older format has no units.
            assert {entry["unit"] for entry in said} == {"seconds", ""}
            assert {entry["type"] for entry in said} == {"histogram"}


def _compare(
    port: int, job: str, wanted: dict[tuple[str, frozenset[tuple[str, str]]], float]
) -> None:
    stored: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for series in ask(port, "query", query=f'{{job="{job}"}}')["result"]:
        labels = dict(series["metric"])
        name = labels.pop("__name__")
        del labels["job"], labels["instance"]
        stored.setdefault(name, {})[frozenset(labels.items())] = float(series["value"][1])
    for (name, asked), value in wanted.items():
        # le and quantile are numbers: 1 and 1.0 are one.
        same = {_canonical(k): v for k, v in stored[name].items()}
        assert same[_canonical(asked)] == pytest.approx(value, rel=1e-9), (job, name, asked)


def _canonical(labels: frozenset[tuple[str, str]]) -> frozenset[tuple[str, object]]:
    return frozenset((k, float(v) if k in ("le", "quantile") else v) for k, v in labels)
