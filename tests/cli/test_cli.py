"""The command line as a user meets it: in a process of its own."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from command_line import run
from places import RECORDING, ROOT

import profilemate
from profilemate.cli import app
from profilemate.parse.readers.kineto import native


def commands(
    group: typer.Typer, prefix: str = "profilemate"
) -> dict[str, typer.models.CommandInfo]:
    found = {
        f"{prefix} {c.name or (c.callback.__name__ if c.callback else '')}": c
        for c in group.registered_commands
    }
    for sub in group.registered_groups:
        assert sub.typer_instance is not None
        found.update(commands(sub.typer_instance, f"{prefix} {sub.name}"))
    return found


COMMANDS = sorted(commands(app))


def test_the_commands_are_the_ones_we_think() -> None:
    assert set(COMMANDS) == {
        "profilemate parse",
        "profilemate run",
        "profilemate scrub",
        "profilemate export",
        "profilemate hta",
        "profilemate report",
        "profilemate compare",
        "profilemate perfetto",
        "profilemate view",
        "profilemate annotate status",
        "profilemate annotate path",
        "profilemate cache clear",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_mentions_every_command(command: str) -> None:
    assert command in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command: str) -> None:
    done = run(*command.split()[1:], "--help")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    body = done.stdout.partition("Options:")[2]
    assert "Examples:" in body, "every command shows how it is used"
    options = re.findall(r"^  (-\S.*?)(?:\s{2,}(\S.*))?$", body, re.MULTILINE)
    assert options
    assert all(text for _, text in options), options


def test_alone_it_shows_where_to_start() -> None:
    done = run()
    assert "nsys profile" in done.stdout + done.stderr
    assert "profilemate parse" in done.stdout + done.stderr
    assert "profilemate report session" in done.stdout + done.stderr
    assert "..." not in (done.stdout + done.stderr).partition("Commands:")[2], "no help is cut"
    assert "Traceback" not in done.stderr


def test_version_and_module() -> None:
    first, second = run("--version").stdout.splitlines()
    assert first == f"profilemate {profilemate.__version__}"
    assert second == f"scanner of torch traces: {native.description()}"
    done = run("--version", env={native.VARIABLE: "exact"})
    assert "none, which is slow: the compiled scanner" in done.stdout
    assert "is switched off by PROFILEMATE_SCANNER. Unset PROFILEMATE_SCANNER." in done.stdout
    done = run("--version", env={native.VARIABLE: "rust"})
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "Set it to exact or compiled" in done.stderr


def test_shell_completion_is_offered() -> None:
    done = run("--show-completion", env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert "--show-completion" in run("--help").stdout
    assert "Traceback" not in done.stderr


def test_help_and_path_load_no_pandas() -> None:
    code = (
        "import sys; sys.argv = ['profilemate', 'annotate', 'path']\n"
        "from profilemate.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    folder, loaded = done.stdout.splitlines()
    assert (Path(folder) / "sitecustomize.py").is_file()
    assert loaded == "False"


# --------------------------------------------------------------------------- what is kept


def test_a_recording_is_kept_shown_and_removed(tmp_path: Path) -> None:
    import gzip

    trace = tmp_path / "t.json.gz"
    # Escapes are decoded one by one: what is read in a moment is not worth keeping.
    events = [
        {"ph": "X", "cat": "kernel", "name": "k\\", "ts": i, "dur": 1, "args": {"correlation": i}}
        for i in range(1, 100_000)
    ]
    trace.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode(), 1))
    os.utime(trace, (1, 1))
    env = {"PROFILEMATE_CACHE": str(tmp_path / "cache"), "PROFILEMATE_CACHE_MB": "100"}
    written: list[dict[str, bytes]] = []
    for option, files in (("--no-cache", 0), ("--quiet", 1), ("--quiet", 1)):
        time.sleep(2.1 if not written else 0)  # what was changed a moment ago is not kept
        done = run("parse", trace, "-o", "s", "--force", option, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        written.append({p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()})
        shown = run("cache", env=env).stdout
        assert re.search(rf"^decoded recordings: {files} files?, .*at most 100 MB$", shown, re.M)
        assert str(tmp_path / "cache" / "decoded") in shown
    assert written[0] == written[1] == written[2]
    mine = tmp_path / "cache" / "decoded" / "notes.txt"
    mine.touch()
    export = tmp_path / "cache" / "exports" / f"run-{'0' * 16}.sqlite"
    export.parent.mkdir()
    export.write_bytes(bytes(2_000_000))
    said = run("cache", "clear", env=env).stdout
    assert re.fullmatch(
        r"removed 1 file, \S+ MB of decoded recordings\n"
        r"removed 1 file, 2\.0 MB of exports of reports\n",
        said,
    )
    assert mine.exists()
    assert "0 files, 0.0 MB" in run("cache", env=env).stdout


def test_a_cache_that_cannot_be_written_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    env = {"PROFILEMATE_CACHE_MB": "100"}
    code = (
        "import sys, profilemate.parse.cache as cache\n"
        "cache.TraceCache.is_worth = lambda self, seconds: True\n"
        "from profilemate.cli import main\n"
        "main()"
    )
    options = ("-o", tmp_path / "s", "--cache", tmp_path / "file" / "x")
    done = subprocess.run(
        [sys.executable, "-c", code, "parse", str(RECORDING), *map(str, options)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=True,
    )
    (note,) = done.stderr.splitlines()
    assert note.startswith(f"note: nothing is cached in {tmp_path}/file/x: ")
    bad = run("parse", RECORDING, "-o", tmp_path / "t", env={"PROFILEMATE_CACHE_MB": "lots"})
    assert bad.returncode == 2
    assert "is no number of megabytes" in bad.stderr


# --------------------------------------------------------------------------- bad input


def truncated(path: Path) -> Path:
    whole = path.with_name("whole.sqlite")
    with sqlite3.connect(whole) as db:
        db.execute("CREATE TABLE NVTX_EVENTS (start INTEGER, text TEXT)")
        db.executemany(
            "INSERT INTO NVTX_EVENTS VALUES (?, ?)", [(i, "x" * 200) for i in range(999)]
        )
    db.close()
    path.write_bytes(whole.read_bytes()[:30_000])
    return path


def bad_inputs(folder: Path) -> dict[str, Path]:
    empty = folder / "empty.nsys-rep"
    empty.touch()
    png = folder / "picture.nsys-rep"
    png.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (folder / "nothing").mkdir()
    foreign = folder / "foreign.sqlite"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE things (id INTEGER)")
    db.close()
    looped = folder / "looped.sqlite"
    looped.symlink_to(looped)
    kineto = folder / "trace.pt.trace.json"
    kineto.write_text('{"traceEvents": []}')
    return {
        "an empty file": empty,
        "a directory without traces": folder / "nothing",
        "a picture with a report's name": png,
        "a truncated sqlite": truncated(folder / "cut.sqlite"),
        "a file that cannot be read": looped,
        "another program's sqlite": foreign,
        "nothing at all": folder / "not_there.nsys-rep",
        "a torch profiler trace": kineto,
    }


@pytest.mark.parametrize(
    "what",
    [
        "an empty file",
        "a directory without traces",
        "a picture with a report's name",
        "a truncated sqlite",
        "a file that cannot be read",
        "another program's sqlite",
        "nothing at all",
        "a torch profiler trace",
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(what: str, tmp_path: Path) -> None:
    path = bad_inputs(tmp_path)[what]
    out = tmp_path / "session"
    done = run("parse", path, "-o", out)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert path.name in done.stderr
    assert len(lines) >= 2, "a reason or a next step belongs to every error"
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_an_existing_output_is_not_touched_without_force(tmp_path: Path) -> None:
    out = tmp_path / "session"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    done = run("parse", RECORDING, "-o", out)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert str(out) in done.stderr
    assert [p.name for p in out.iterdir()] == ["mine.txt"]


def test_force_replaces_a_session_of_ours(tmp_path: Path) -> None:
    out = tmp_path / "session"
    assert run("parse", RECORDING, "-o", out, "--quiet").returncode == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    (out / "kv_cache_usage.csv").write_text("spoiled")
    done = run("parse", RECORDING, "-o", out, "--force", "--quiet")
    assert (done.returncode, done.stdout) == (0, "")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_an_unwritable_place_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = run("parse", RECORDING, "-o", file / "session")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_json_is_for_machines(tmp_path: Path) -> None:
    done = run("parse", RECORDING, "-o", tmp_path / "s", "--json")
    summary = json.loads(done.stdout)
    assert summary["kv_cache"]["preemptions"] > 0
    assert summary["output_dir"] == str(tmp_path / "s")


def test_without_a_name_the_session_is_named_by_its_start(tmp_path: Path) -> None:
    done = run("parse", RECORDING, cwd=tmp_path)
    (session,) = tmp_path.iterdir()
    assert re.fullmatch(r"session_\d{8}_\d{6}", session.name)
    assert session.name in done.stdout
    metadata = json.loads((session / "metadata.json").read_text())
    assert metadata["session_id"] == session.name
    assert re.search(r"[+-]\d\d:\d\d$", metadata["start_time"])


def test_the_summary_fits_eighty_columns(tmp_path: Path) -> None:
    done = run("parse", RECORDING, "-o", "s", cwd=tmp_path)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout


def test_annotate_status_explains_itself() -> None:
    done = run("annotate", "status", env={"PROFILEMATE": "maybe"})
    assert done.returncode == 0
    assert "no recorder in the environment" in " ".join(done.stdout.split())
    assert "PROFILEMATE='maybe'" in " ".join(done.stdout.split())
    on = run("annotate", "status", env={"NSYS_PROFILING_SESSION_ID": "1"})
    assert "yes: Nsight Systems is attached" in " ".join(on.stdout.split())
    assert re.search(r"^sink +nvtx", on.stdout, re.MULTILINE)


def test_annotate_status_says_where_live_sessions_go(tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(ROOT), "VLLM_PROFILING_DIR": str(tmp_path)}
    said = " ".join(run("annotate", "status", env=env).stdout.split())
    assert "annotate yes: VLLM_PROFILING_DIR is set" in said
    assert "sitecustomize open: on PYTHONPATH" in said
    assert "sink sidecar" in said
    assert "session_*" in said
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "file").write_text("")
    env["VLLM_PROFILING_DIR"] = str(tmp_path / "file")
    said = " ".join(run("annotate", "status", env=env).stdout.split())
    assert "is no directory" in said


def test_annotate_status_knows_the_torch_profiler() -> None:
    off = " ".join(run("annotate", "status").stdout.split())
    assert "as soon as vLLM's configuration has a torch profiler" in off
    assert "sink" not in off
    for name in ("VLLM_TORCH_PROFILER_DIR", "PROFILEMATE_TORCH"):
        on = run("annotate", "status", env={name: "1", "PROFILEMATE_STEPS": "5:10"})
        text = " ".join(on.stdout.split())
        assert "annotate yes: " in text
        assert "sink torch profiler, while one runs; steps 5 to 14 only" in text


def test_commands_that_read_nothing_start_without_numpy() -> None:
    code = "import sys, profilemate.cli.app; print({'numpy', 'pandas'} & {*sys.modules})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
@pytest.mark.parametrize("command", [("--version",), ("annotate", "path")])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full(command: tuple[str, ...], unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "profilemate", *command],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: cannot write the output",
        "  No space left on device",
        "  Make room where it goes to, or send it elsewhere.",
    ]


def test_status_asks_which_sitecustomize_python_has_loaded(tmp_path: Path) -> None:
    """`opentelemetry-instrument` puts a folder in front that hands on to nobody."""
    (tmp_path / "sitecustomize.py").write_text("")
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    said = "".join(run("annotate", "status", env=env).stdout.split())
    assert f"butPythonloads{tmp_path}/sitecustomize.pyinitsplace" in said
    assert "sitecustomizeopen:" not in said
    behind = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    said = " ".join(run("annotate", "status", env=behind).stdout.split())
    assert "sitecustomize open: on PYTHONPATH" in said
