"""Recordings are put together, started and seen to their end; no engine is needed for it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import ROOT

from profilemate.errors import InputError, OutputError, ToolError
from profilemate.record.plan import Recorder, make_plan
from profilemate.record.start import run
from profilemate.record.target import Target, look

SERVE = ("vllm", "serve", "MODEL")


@pytest.fixture
def nsys(tmp_path: Path) -> Path:
    """A stand-in for nsys: it runs what is behind its options and leaves a report."""
    program = tmp_path / "bin" / "nsys"
    program.parent.mkdir()
    program.write_text(
        f"""#!{sys.executable}
import pathlib, signal, subprocess, sys
signal.signal(signal.SIGINT, lambda *a: None)
at = sys.argv.index("-o")
child = subprocess.Popen(sys.argv[at + 2:])
code = child.wait()
pathlib.Path(sys.argv[at + 1] + ".nsys-rep").write_text(" ".join(sys.argv[2:at]))
sys.exit(code if code >= 0 else 128 - code)
"""
    )
    program.chmod(0o755)
    return program


def target(*command: str, **facts: bool) -> Target:
    return Target(command, sys.executable, "/site-packages/vllm", **{"annotates": True, **facts})


def test_a_target_is_looked_at_without_importing_it(tmp_path: Path) -> None:
    package = tmp_path / "vllm"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "engine" / "arg_utils.py").write_text('add("--profiler-config")')
    script = tmp_path / "vllm-script"
    script.write_text(f"#!{sys.executable}\n")
    script.chmod(0o755)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    code = (
        "import sys; from profilemate.record.target import look; "
        "t = look(sys.argv[1:]); print(t.python, t.vllm, t.annotates, t.profiler_config,"
        " t.shutdown_timeout, t.serves)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(script), "serve", "M"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [sys.executable, str(package), "True", "True", "False", "True"]


def test_a_target_that_is_no_python_program() -> None:
    found = look(["/bin/sh", "-c", "true"])
    assert (found.python, found.vllm) == (None, None)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (("--profiler-config.profiler", "torch"), True),
        (("--profiler_config={}",), True),
        (("--profiler-config", "{}"), True),
        (("--profiler",), False),
    ],
)
def test_options_are_found_in_every_spelling(words: tuple[str, ...], given: bool) -> None:
    assert target(*SERVE, *words).has("--profiler-config") is given


def test_nsys_is_given_its_flags(tmp_path: Path, nsys: Path) -> None:
    plan = make_plan(
        target(*SERVE, shutdown_timeout=True),
        "nsys",
        tmp_path / "out",
        steps="201:50",
        nodes=True,
        nsys=nsys,
    )
    assert "--trace-fork-before-exec=true" in plan.prefix
    assert "--cuda-graph-trace=node" in plan.prefix
    assert not any(w.startswith("--capture-range") for w in plan.prefix)
    assert plan.env == {"PROFILEMATE_STEPS": "201:50"}
    assert plan.command == (*SERVE, "--shutdown-timeout", "20")
    assert plan.traces == [tmp_path / "out" / "recording.nsys-rep"]
    assert shlex.split(plan.line())[1] == str(nsys)


@pytest.mark.parametrize(
    "words", [("--profiler-config.profiler", "cuda"), ("--profiler-config", '{"profiler": "cuda"}')]
)
def test_vllms_cuda_profiler_sets_the_capture_range(
    tmp_path: Path, nsys: Path, words: tuple[str, ...]
) -> None:
    plan = make_plan(target(*SERVE, *words), "nsys", tmp_path / "out", nsys=nsys)
    assert "--capture-range=cudaProfilerApi" in plan.prefix


def test_the_torch_profiler_is_configured_as_this_vllm_wants_it(tmp_path: Path) -> None:
    new = make_plan(target(*SERVE, profiler_config=True), "torch", tmp_path / "out")
    at = new.command.index("--profiler-config")
    folder = str(tmp_path / "out" / "torch")
    config = json.loads(new.command[at + 1])
    assert (config["profiler"], config["torch_profiler_dir"]) == ("torch", folder)
    assert "VLLM_TORCH_PROFILER_DIR" not in new.env
    old = make_plan(target(*SERVE), "torch", tmp_path / "out")
    assert old.env["VLLM_TORCH_PROFILER_DIR"] == folder
    assert "--profiler-config" not in old.command
    script = make_plan(target("python", "x.py", profiler_config=True), "torch", tmp_path / "out")
    assert script.command == ("python", "x.py")
    assert any("profiler_config=" in note for note in script.notes)


def test_the_door_is_opened_where_profilemate_is_not_installed(tmp_path: Path) -> None:
    door = tmp_path / "door"
    without, with_ = target(*SERVE, annotates=False), target(*SERVE)
    plan = make_plan(without, "live", tmp_path / "o", door=door, pythonpath="/mine")
    assert plan.env["PYTHONPATH"] == f"{door}:/mine"
    assert "PROFILEMATE_DOOR" not in plan.env
    plan = make_plan(without, "torch", tmp_path / "o", door=door)
    assert plan.env["PROFILEMATE_DOOR"] == "run", "no live session beside it"
    plan = make_plan(with_, "live", tmp_path / "o", door=door, pythonpath="/mine")
    assert "PYTHONPATH" not in plan.env


@pytest.mark.parametrize("steps", ["5", "0:3", "3:0", "a:b", "1:-2", "1:2:3", ""])
def test_steps_that_are_none(tmp_path: Path, steps: str) -> None:
    with pytest.raises(InputError, match="START:COUNT"):
        make_plan(target(*SERVE), "live", tmp_path / "out", steps=steps)


def test_what_cannot_be_recorded_is_said(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no nsys"):
        make_plan(target(*SERVE), "nsys", tmp_path / "out", nsys=tmp_path / "none")
    with pytest.raises(InputError, match="no such program"):
        make_plan(Target(("no-such-program",)), "live", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(OutputError, match="not empty"):
        make_plan(target(*SERVE), "live", tmp_path / "full")


# ------------------------------------------------------------------ starting

CHILD = """
import os, signal, sys, time
def say(*words):  # not by print: a signal may come in the middle of one
    os.write(1, " ".join(map(str, words)).encode() + b"\\n")
def end(number, frame):
    say("got", number)
    sys.exit({code})
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
say("ready", os.environ.get("PROFILEMATE"))
time.sleep(60)
"""


def command(recorder: Recorder, nsys: Path, folder: Path, code: str) -> subprocess.Popen[str]:
    flag = f"--{recorder}"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "profilemate", "run", flag, "--no-parse", "-o", str(folder)),
            *("--nsys-path", str(nsys), "--", sys.executable, "-c", code),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("recorder", ["nsys", "live"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command_and_its_end_is_a_success(
    tmp_path: Path, nsys: Path, recorder: Recorder, number: signal.Signals
) -> None:
    code = CHILD.format(code=128 + number)
    with command(recorder, nsys, tmp_path / "out", code) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == f"ready {'on' if recorder == 'live' else None}\n"
        # As Ctrl-C does: to the whole foreground group.
        os.killpg(running.pid, number)
        out, err = running.communicate(timeout=120)
    assert out == f"got {int(number)}\n"
    assert running.returncode == 0, err
    assert f"ended by {number.name}" in err
    assert (tmp_path / "out" / "recording.nsys-rep").exists() == (recorder == "nsys")


def test_a_command_that_fails_by_itself_says_so(tmp_path: Path, nsys: Path) -> None:
    with command("nsys", nsys, tmp_path / "out", "raise SystemExit(3)") as running:
        running.communicate(timeout=120)
    assert running.returncode == 3


def test_a_failure_after_a_signal_is_a_failure(tmp_path: Path, nsys: Path) -> None:
    with command("live", nsys, tmp_path / "out", CHILD.format(code=7)) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=120)
    assert running.returncode == 7


def test_a_recorder_that_outlives_its_command_gets_the_next_signal(tmp_path: Path) -> None:
    slow = tmp_path / "nsys"
    slow.write_text(
        f"#!{sys.executable}\nimport subprocess, sys, time\n"
        "at = sys.argv.index('-o')\nsubprocess.run(sys.argv[at + 2:])\n"
        "print('writing', flush=True)\ntime.sleep(60)\n"
    )
    slow.chmod(0o755)
    with command("nsys", slow, tmp_path / "out", "pass") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "writing\n"
        time.sleep(0.1)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=120)
    assert running.returncode == 0


def test_without_a_recording_there_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "profilemate", "run", "--nsys", "--nsys-path", "/bin/true"),
            *("-o", str(tmp_path / "out"), "--", sys.executable, "-c", "pass"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "left no recording" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_exit_code_of_a_killed_command(tmp_path: Path) -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    plan = make_plan(target(sys.executable, "-c", code), "live", tmp_path / "out")
    assert run(plan, lambda text: None) == 137
