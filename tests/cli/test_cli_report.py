"""`profilemate report` and `compare` as a user meets them: in a process of their own."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import run
from places import RECORDING, ROOT
from saved_build import (
    Rows,
    coverage,
    graph,
    step,
    usage,
    write_session,
    write_tables,
)

LONG = "x" * 30 + ":" + "y" * 60


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session of the bundled recording."""
    out = tmp_path_factory.mktemp("bundled") / "session"
    assert run("parse", RECORDING, "-o", out, "--quiet").returncode == 0
    return out


def big_tables(slower: float = 1.0) -> dict[str, Rows]:
    """Everything that can be said, with large figures and long names."""
    steps = [
        step(i / 1000, tokens=size, descriptor=LONG, graph_gpu_ms=slower * (1 + i % 7 / 100))
        for size in range(1, 20)
        for i in range(20)
    ]
    steps += [step(9 + i / 1000, "NONE", 123_456) for i in range(500)]
    keys = [graph(s, m) for s in range(1, 300) for m in ("FULL", "PIECEWISE")]
    return {
        "cuda_graph_steps": steps,
        "cuda_graph_captures": [k | {"capture_time_sec": 0.0} for k in keys],
        "cuda_graph_usage": [graph(7, replay_count=123_456_789)],
        "cuda_graph_coverage": coverage(
            123_456_789,
            unpadded_tokens=9_876_543_210,
            graphs_replayed=1,
            graphs_never_replayed=597,
            never_replayed_capture_ms=999_999,
        ),
        "cuda_graph_replay_latency": [graph(7, steps=123_456_789, gpu_span_p50_ms=12_345.678)],
        "cuda_graph_padding": [
            {"unpadded_tokens": s, "padded_tokens": 512, "runtime_mode": "FULL", "count": 12_345}
            for s in range(1, 300)
        ],
        "kv_cache_usage": usage((0, 1), (50, 123_456_789), total=123_456_790),
        "kv_preemptions": [{"timestamp_sec": 1, "request_id": LONG, "tokens_lost": 999_999_999}],
        "kv_prefix_cache": [{"tokens": 10**12, "hit_tokens": 1}] * 30,
    }


def big(folder: Path, slower: float = 1.0) -> Path:
    write_session(
        folder,
        big_tables(slower),
        session_id="session_" + LONG,
        processes=[{"host": LONG, "role": "engine", "rank": f"dp{i}"} for i in range(9)],
        versions={"vllm": f"0.32.0+{LONG}{folder.name}"},
        hooks={"installed": {LONG: LONG}, "skipped": {f"{LONG}{i}": LONG for i in range(9)}},
    )
    write_tables(folder / "ranks" / "dp1_pp0_tp0", {"kv_cache_usage": usage((0, 1), (1, 2))})
    return folder


def fits(text: str) -> None:
    widest = max(text.splitlines(), key=len)
    assert len(widest) <= 80, widest
    assert all(line == line.rstrip() for line in text.splitlines())
    assert "\x1b" not in text
    assert "\u2026" not in text, "nothing is cut with an ellipsis"
    text.encode("ascii")


def test_the_report_of_the_bundled_recording(bundled: Path) -> None:
    done = run("report", bundled)
    assert (done.returncode, done.stderr) == (0, "")
    fits(done.stdout)
    assert "KV cache under-provisioned: peak usage 100 %, 12 preemptions" in done.stdout
    assert re.search(r"^KV usage +peak 100 %", done.stdout, re.MULTILINE)
    assert re.search(r"^- +kv-evictions: the recording is 4\.5 s long", done.stdout, re.MULTILINE)


def test_everything_fits_eighty_columns_and_nothing_is_cut(tmp_path: Path) -> None:
    a, b = big(tmp_path / "a"), big(tmp_path / "b", slower=1.5)
    report = run("report", a, "--all")
    assert report.returncode == 0, report.stderr
    fits(report.stdout)
    copied = re.findall(r"--compilation-config '(\{[^']*)'", report.stdout)
    sizes = [json.loads(value)["cudagraph_capture_sizes"] for value in copied]
    assert [max(s) for s in sizes] == [123_456], (
        "one value for the flag, over several lines, and still JSON"
    )
    compared = run("compare", a, b, "--all", "--fail-on", "replay_p50>5%")
    assert compared.returncode == 1, compared.stderr
    fits(compared.stdout)
    flat = re.sub(r"\s", "", compared.stdout)
    assert "123,456,789" in flat
    assert flat.count("slower") >= 19
    for text in ("--thresholds", "--metrics"):
        listed = run("report" if text == "--thresholds" else "compare", text)
        assert listed.returncode == 0
        fits(listed.stdout)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--fail-on", "critical"], 1),
        (["--fail-on", "warning"], 1),
        (
            [
                *("--fail-on", "critical", "--threshold", "kv_usage_full=1"),
                *("--threshold", "preempt_lost_share=0.5"),
            ],
            0,
        ),
        (["--fail-on", "nothing"], 2),
        (["--threshold", "kv_usage_lo=1"], 2),
    ],
)
def test_exit_codes_of_report(bundled: Path, arguments: Sequence[str], code: int) -> None:
    done = run("report", bundled, *arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert (not done.stdout) == (code == 2)


def test_findings_are_written_only_when_asked(bundled: Path, tmp_path: Path) -> None:
    session = tmp_path / "s"
    shutil.copytree(bundled, session)
    printed = run("report", session, "--json").stdout
    assert not (session / "findings.json").exists()
    assert run("report", session, "--write", "--json").stdout == printed
    assert json.loads((session / "findings.json").read_text()) == json.loads(printed)
    assert sorted(p.name for p in session.iterdir() if p.name.startswith(".")) == []


def test_findings_that_cannot_be_written_are_an_error(bundled: Path, tmp_path: Path) -> None:
    session = tmp_path / "s"
    shutil.copytree(bundled, session)
    (session / "findings.json").mkdir()
    done = run("report", session, "--write")
    assert done.returncode == 2
    assert "cannot write the findings" in done.stderr
    assert "--json > findings.json" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_exit_codes_of_compare(bundled: Path) -> None:
    same = run("compare", bundled, bundled, "--fail-on", "kv_evictions>0%")
    assert same.returncode == 0, same.stderr
    assert "passes  kv_evictions>0%" in same.stdout
    failed = run("compare", bundled, bundled, "--fail-on", "preemptions>0", "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["failed"] == ["preemptions>0"]
    missing = run("compare", bundled, bundled, "--fail-on", "replay_p50>5%")
    assert missing.returncode == 2, "no data is no pass"
    assert "Session B has no replay_p50" in missing.stderr
    assert "KV usage, peak" in missing.stdout, "the tables are shown all the same"
    unknown = run("compare", bundled, bundled, "--fail-on", "replay_p5>5%")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "Did you mean replay_p50?" in unknown.stderr


@pytest.mark.parametrize("command", [["report"], ["compare", "SAME"]])
def test_a_folder_that_is_no_session(command: list[str], tmp_path: Path) -> None:
    name, *more = command
    done = run(name, tmp_path, *[tmp_path for _ in more])
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
    assert "profilemate parse TRACE -o session" in done.stderr


def test_every_locale_can_print_everything(tmp_path: Path) -> None:
    write_session(tmp_path / "s", big_tables(), session_id="Sitzung \u00e4\u00df \u6f22")
    environment = {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run("report", tmp_path / "s", env=environment)
    assert done.returncode == 0, done.stderr
    done.stdout.encode("ascii")
    assert json.loads(run("report", tmp_path / "s", "--json", env=environment).stdout)


def on_a_terminal(arguments: Sequence[str | Path], env: dict[str, str]) -> str:
    """What the command shows on a terminal of its own."""
    pid, fd = pty.fork()
    if pid == 0:  # the child
        full = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **env}
        command = [sys.executable, "-m", "profilemate", *map(str, arguments)]
        os.execvpe(command[0], command, full)
    shown = b""
    while True:
        try:
            part = os.read(fd, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        shown += part
    os.waitpid(pid, 0)
    os.close(fd)
    return shown.decode()


def test_colours_are_for_terminals_that_want_them(bundled: Path) -> None:
    coloured = on_a_terminal(["report", bundled], {"COLUMNS": "80"})
    assert re.search(r"\x1b\[[0-9;]*31m *critical", coloured), "red"
    plain = on_a_terminal(["report", bundled], {"COLUMNS": "80", "NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain), "no colour"
    assert "critical" in plain
