"""The oldest pandas, typer, … that pyproject.toml allows: the same tables, and not one warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import BUNDLED, ROOT
from served import tool

from profilemate.parse.pipeline import parse_session

pytestmark = pytest.mark.real

TRACES = Path(os.environ.get("PROFILEMATE_REAL_TRACES", ROOT.parent / "shared" / "traces"))


def profilemate(*arguments: object, python: Path | None = None) -> str:
    """Run a command with the old packages; what it prints."""
    python = python or tool("PROFILEMATE_TEST_LOWEST_PYTHON")
    done = subprocess.run(
        [str(python), "-W", "error", "-m", "profilemate", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PROFILEMATE_CACHE_MB": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def test_the_bundled_recording_gives_the_same_bytes(tmp_path: Path) -> None:
    profilemate("parse", BUNDLED / "recording.sqlite", "-o", tmp_path / "session")
    expected = sorted((BUNDLED / "expected").glob("*.csv"))
    assert expected
    for file in expected:
        assert (tmp_path / "session" / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize(
    "name",
    [
        "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz",
        "training_v100_two_graphs_old_kineto.json.gz",
        "nsys_h100_2gpu_no_graphs.sqlite",
    ],
)
def test_real_gpu_traces_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    if not TRACES.is_dir():
        pytest.skip(f"the real traces are not at {TRACES}")
    profilemate("parse", TRACES / name, "-o", tmp_path / "old", "--timeline")
    parse_session([TRACES / name], out=tmp_path / "new")
    names = sorted(file.name for file in (tmp_path / "new").glob("*.csv"))
    assert names == sorted(file.name for file in (tmp_path / "old").glob("*.csv"))
    for each in names:
        old, new = ((tmp_path / which / each).read_bytes() for which in ("old", "new"))
        assert old == new, each


def test_what_is_said_of_a_session_is_the_same(tmp_path: Path) -> None:
    session = tmp_path / "session"
    profilemate("parse", BUNDLED / "recording.sqlite", "-o", session)
    for command in (
        ("report", session),
        ("report", session, "--json"),
        ("compare", session, session),
        ("export", session, "--format", "openmetrics"),
    ):
        old, new = profilemate(*command), profilemate(*command, python=Path(sys.executable))
        assert old == new, command
        assert old
    profilemate("report", session, "-o", tmp_path / "page.html", "--png", tmp_path / "pictures")
    assert "</html>" in (tmp_path / "page.html").read_text()
    assert any((tmp_path / "pictures").glob("*.png"))
