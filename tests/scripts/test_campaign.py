"""The campaign of damaged inputs: a short one is clean, and it sees harm where there is some."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import campaign
import pytest
from places import ROOT

import profilemate.cli


def test_a_short_campaign_is_clean() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "harm" / "campaign.py"), "-n", "24"]
    done = subprocess.run(
        [*command, "--jobs", "1"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "24 cases, 0 with a fault" in done.stdout


def write_elsewhere() -> None:
    elsewhere = Path.cwd().parent / "elsewhere.txt"
    elsewhere.write_text("harm")
    elsewhere.unlink()


def fail() -> None:
    raise ValueError("a fault of ours")


def end_otherwise() -> None:
    raise SystemExit(3)


def say_nothing() -> None:
    raise SystemExit(2)


def take_memory() -> None:
    size = campaign.MOST_BYTES + (64 << 20)
    assert bytearray(b"x" * size).count(b"y") == 0


def color_the_terminal() -> None:
    sys.stdout.write("\x1b[31mred\n")


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (write_elsewhere, "which is not its own"),
        (fail, "a traceback: ValueError: a fault of ours"),
        (end_otherwise, "exit code 3"),
        (say_nothing, "exit code 2 without a word"),
        (take_memory, " MB"),
        (color_the_terminal, "an escape sequence"),
    ],
)
def test_harm_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[], None], fault: str
) -> None:
    monkeypatch.setattr(profilemate.cli, "main", harm)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    place = tmp_path / "case"
    place.mkdir()
    outcome = campaign.run(campaign.Case(1, "nothing", ["parse", "x"]), place)
    assert any(fault in one for one in outcome.faults), outcome.faults
