"""The compiled scanner under the address sanitizer: a driver in C feeds it mangled events."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from recorded import leave_out

DRIVER = Path(__file__).with_name("fuzz_scan.c")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver, built."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        leave_out("there is no C compiler")
    program = tmp_path_factory.mktemp("fuzz") / "fuzz_scan"
    command = [str(compiler), "-g", "-O1", *SANITIZERS, str(DRIVER), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        leave_out(f"{compiler} has no sanitizers: {done.stderr}")
    return program


@pytest.mark.parametrize("seed", range(3))
def test_it_stays_within_what_it_is_given(driver: Path, seed: int) -> None:
    rounds = os.environ.get("PROFILEMATE_TEST_FUZZ_ROUNDS", "60000")
    done = subprocess.run(
        [driver, rounds, str(seed)], capture_output=True, text=True, check=False, timeout=3600
    )
    assert done.stdout == f"{rounds} rounds\n", done.stderr[-4000:]
    assert done.returncode == 0
