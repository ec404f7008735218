"""Every command meets names that a terminal would obey: they are shown, and nothing is obeyed."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from places import RECORDING, ROOT

from profilemate.cli import show

EVIL = "\x1b]0;PWNED\x07\x1b[31m[red]RED[/]\u202e\x9b2J\nerror: x"
NAME = b"\x1b]0;PWNED\x07[red]\xff\xe2\x80\xae\x9b\n"
"""Of files and folders; no UTF-8."""


def run(*arguments: str | bytes | Path, cwd: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "profilemate", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, cwd=cwd, env=env, check=False)
    # What is printed is UTF-8 whatever was in it.
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def is_obeyed(char: str) -> bool:
    turns = unicodedata.bidirectional(char) in ("RLO", "LRO", "RLE", "LRE", "RLI", "LRI", "FSI")
    return turns or (unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") and char != "\n")


def check(done: tuple[int, str, str], code: int = 0) -> str:
    found, out, err = done
    text = out + err
    assert "Traceback" not in text, text
    assert not [char for char in text if is_obeyed(char)], text
    assert not [line for line in text.splitlines() if line.startswith("error: x")], text
    assert found == code, text
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bad name, a recording and a session with bad names, full of bad names."""
    place = tmp_path_factory.mktemp("evil") / os.fsdecode(NAME)
    place.mkdir()
    trace = place / (os.fsdecode(NAME) + ".json")
    kernel = {"ph": "X", "cat": "kernel", "name": EVIL, "pid": 0, "tid": 7, "ts": 1.0, "dur": 1.0}
    kernel["args"] = {"correlation": 1, "stream": 7, "device": 0}
    head = {"schemaVersion": 1, "vllm_version": EVIL, "distributedInfo": {"backend": EVIL}}
    trace.write_text(json.dumps({**head, "traceEvents": [kernel]}))
    recording = place / (os.fsdecode(NAME) + ".sqlite")
    recording.write_bytes(RECORDING.read_bytes())
    spelled = "%1B]0;PWNED%07[red]%E2%80%AE%0Aerror:%20x"
    with sqlite3.connect(recording.rename(place / "r.sqlite")) as db:
        for field in ("req", "host", "vllm", "torch", "why"):
            db.execute(
                "UPDATE StringIds SET value = replace(value, ?, ?)",
                (f" {field}=", f" {field}={spelled}"),
            )
    db.close()
    (place / "r.sqlite").rename(recording)
    return place


@pytest.fixture(scope="module")
def session(folder: Path) -> Path:
    out = folder / os.fsdecode(NAME)
    (recording,) = folder.glob("*.sqlite")
    text = check(run("parse", recording, "-o", out, "--timeline", cwd=folder))
    assert "wrote" in text
    return out


def test_parse(folder: Path, session: Path) -> None:
    (trace,) = folder.glob("*.json")
    text = check(run("parse", trace, "-o", "t", "--force", cwd=folder))
    assert r"\x1b]0;PWNED\x07" in text
    assert "[red]" in text, "no markup"
    check(run("parse", trace, "-o", session, cwd=folder), 2)
    check(run("parse", session, "-o", "u", cwd=folder), 2)
    text = check(run("parse", folder / (EVIL + "none"), cwd=folder), 2)
    assert r"\x1b]0;PWNED\x07\x1b[31m[red]RED[/]\u202e\x9b2J\nerror: xnone" in text
    done = run("parse", trace, "-o", "t", "--force", "--json", cwd=folder)
    check(done)
    assert EVIL in json.loads(done[1])["recorder"], "machines get the true text"


def test_files_keep_the_true_text(session: Path) -> None:
    metadata = json.loads((session / "metadata.json").read_text())
    assert "\x1b]0;PWNED\x07" in metadata["versions"]["vllm"]


def test_report(session: Path) -> None:
    text = check(run("report", session, cwd=session.parent))
    assert r"\x1b]0;PWNED" in text
    check(run("report", session, "--json", cwd=session.parent))
    check(run("report", session, "--threshold", EVIL, cwd=session.parent), 2)
    check(run("report", session, "-o", session / "report.html", cwd=session.parent))


def test_compare(session: Path) -> None:
    text = check(run("compare", session, session, cwd=session.parent))
    assert r"\x1b]0;PWNED" in text
    check(run("compare", session, session, "--json", cwd=session.parent))
    check(run("compare", session, session, "--fail-on", EVIL, cwd=session.parent), 2)
    check(run("compare", session, session.parent, cwd=session.parent), 2)


def test_export(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("export", session, cwd=session.parent)
    assert (code, err) == (0, "")
    assert "\x1b]0;PWNED\x07" in out, "a pipe gets it byte for byte"
    check(run("export", session, "-o", session / "x.om", cwd=session.parent))
    check(run("export", session, "--format", EVIL, cwd=session.parent), 2)
    show.raw("a\x1b\nb\n")
    assert capsys.readouterr().out == "a\x1b\nb\n"


def test_export_to_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show.raw("a\x1b\nb\n")
    assert capsys.readouterr().out == "a\\x1b\nb\n"


def test_perfetto_and_view(folder: Path, session: Path) -> None:
    (recording,) = folder.glob("*.sqlite")
    out = folder / (os.fsdecode(NAME) + ".pftrace")
    text = check(run("perfetto", recording, "-o", out, cwd=folder))
    assert r"\x1b]0;PWNED" in text
    check(run("perfetto", recording, "-o", out, cwd=folder), 2)
    (session / "report.html").write_text("<p>")
    check(run("view", session, "--report", "--no-browser", cwd=folder))
    check(run("view", folder / (EVIL + ".pftrace"), cwd=folder), 2)
    check(run("view", folder / "t", "--report", cwd=folder), 2)


def test_scrub(folder: Path) -> None:
    (recording,) = folder.glob("*.sqlite")
    out = folder / (os.fsdecode(NAME) + "-scrubbed.sqlite")
    check(run("scrub", recording, out, cwd=folder))
    check(run("scrub", recording, out, cwd=folder), 2)
    (trace,) = folder.glob("*.json")
    check(run("scrub", trace, folder / "z.sqlite", cwd=folder), 2)


def test_hta(folder: Path, session: Path) -> None:
    (trace,) = folder.glob("*.json")
    check(run("hta", session, cwd=folder), 2)
    check(run("hta", trace, cwd=folder), 2)


def test_run_annotate_and_cache(folder: Path) -> None:
    text = check(
        run("run", "--live", "-o", folder / EVIL, "--dry-run", "--", "true", EVIL, cwd=folder)
    )
    assert r"$'\x1b]0;PWNED\x07\x1b[31m[red]RED[/]" in text, "the command can be copied"
    check(run("run", "--live", "--", EVIL, cwd=folder), 2)
    check(run("cache", "--cache", folder, cwd=folder))
    check(run("cache", "clear", "--cache", folder, cwd=folder))
    env = {"PROFILEMATE": EVIL, "PROFILEMATE_DIR": str(folder), "VLLM_PLUGINS": EVIL}
    os.environ.update(env)
    try:
        check(run("annotate", "status", cwd=folder))
    finally:
        for name in env:
            del os.environ[name]
    check(run("annotate", "path", cwd=folder))


@pytest.mark.parametrize(
    "command",
    [
        ("parse", f"--{EVIL}"),
        (EVIL,),
        ("report", "x", EVIL),
        ("cache", EVIL),
        ("annotate", EVIL),
        ("parse", "x", "--jobs", EVIL),
        ("view", "x", "--port", EVIL),
    ],
)
def test_words_that_are_no_command(command: tuple[str, ...], tmp_path: Path) -> None:
    check(run(*command, cwd=tmp_path), 2)
