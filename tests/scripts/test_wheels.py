"""The wheels that are published, built with this machine's compiler in place of theirs."""

from __future__ import annotations

import platform
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import build_scanner
import pytest
import wheels
from installing import SetupError

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in wheels.MACHINES,
    reason="wheels with the scanner are for Linux on these machines",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.wheel(tmp_path_factory.mktemp("wheel"), platform.machine(), "cc")


@pytest.fixture(scope="module")
def library(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(str(build_scanner.LIBRARY))


def test_it_installs_into_an_empty_environment_and_has_the_scanner(
    wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "empty", symlinks=True)
    python = tmp_path / "empty" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(wheel)], check=True, capture_output=True)
    # numpy and the like come from here; what makes a clone importable does not come along.
    packages = sysconfig.get_path("purelib")
    code = (
        "from profilemate.parse.readers.kineto import native\n"
        "print(native.__file__, native.library() is not None)"
    )
    done = subprocess.run(
        [python, "-c", code],
        env={"PYTHONPATH": packages, "PROFILEMATE": "off"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    place, has_scanner = done.stdout.split()
    assert Path(place).is_relative_to(tmp_path / "empty")
    assert has_scanner == "True"


def test_its_name_says_how_old_a_system_may_be(wheel: Path) -> None:
    assert wheel.name.endswith(f"-py3-none-manylinux_2_17_{platform.machine()}.whl")
    with zipfile.ZipFile(wheel) as archive:
        (said,) = (n for n in archive.namelist() if n.endswith(".dist-info/WHEEL"))
        assert f"Tag: py3-none-manylinux_2_17_{platform.machine()}\n" in archive.read(said).decode()


def test_what_is_not_for_every_such_system_is_refused(library: bytes) -> None:
    machine = platform.machine()
    (other,) = set(wheels.MACHINES) - {machine}
    assert wheels.unfit(library, machine) == ""
    assert "for machine" in wheels.unfit(library, other)
    assert "glibc 2.34" in wheels.unfit(library + b"\0GLIBC_2.34\0", machine)
    assert "libstdc++.so.6" in wheels.unfit(library + b"\0libstdc++.so.6\0", machine)
    assert "no ELF file" in wheels.unfit(b"MZ" + library, machine)


def test_without_its_compiler_there_is_no_wheel(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not compile"):
        wheels.wheel(tmp_path, platform.machine(), "false")
