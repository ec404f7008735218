"""Builds the compiled scanner of torch traces into the wheel, where there is a C compiler.

hatchling runs this (`pip install`, `pip wheel`). Without a compiler the wheel is pure Python, and
everything works, slower. `python scripts/build_scanner.py` builds it in this clone, and
`scripts/setup` whenever the clone's is missing or of another source.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("profilemate") / "parse" / "readers" / "kineto"
SOURCE, LIBRARY = FOLDER / "_scan.c", FOLDER / "_scan.so"
FLAGS = ("-O2", "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")


def _checksum() -> int:
    return zlib.crc32((ROOT / SOURCE).read_bytes())


def is_current(library: Path) -> bool:
    """Whether a library is there, can be loaded, and was built of the source as it is now."""
    # In a process of its own: what is loaded once is not loaded anew when the file has changed.
    code = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).pm_source() & 0xFFFFFFFF)"
    if not library.exists():
        return False
    command = [sys.executable, "-c", code, str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() == str(_checksum())


def build(target: Path, flags: tuple[str, ...] = ()) -> str | None:
    """Build the library; return why it could not be built.

    Args:
        target: Where it goes, whole or not at all.
        flags: More of them, for the compiler.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler or os.name != "posix":
        return "there is no C compiler"
    source = ROOT / SOURCE
    name = f"-DPM_SOURCE={_checksum()}u"
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder, target.name)
        command = [*compiler.split(), *FLAGS, *flags, name, str(source), "-o", str(made)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")
        except OSError as e:
            return f"{compiler} cannot be run: {e.strerror}"
        except subprocess.CalledProcessError as e:
            return f"{compiler} says: {e.stderr.strip()}"
        made.replace(target)
    return None


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # by hand, without hatchling
    pass
else:

    class CustomBuildHook(BuildHookInterface[Any]):
        """What hatchling calls before it packs a wheel or makes a clone importable."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Build the library and have it packed."""
            target = ROOT / LIBRARY  # a clone is imported from where it lies
            if version != "editable":
                self._folder = tempfile.TemporaryDirectory()
                target = Path(self._folder.name, LIBRARY.name)
            why = build(target)
            if why is not None:
                self.app.display_warning(f"Without the compiled scanner of torch traces: {why}")
                return
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
            if version != "editable":
                build_data["force_include"][str(target)] = str(LIBRARY)

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            """Leave nothing behind."""
            if self._folder is not None:
                self._folder.cleanup()

        _folder: tempfile.TemporaryDirectory[str] | None = None


if __name__ == "__main__":
    sys.exit(build(ROOT / LIBRARY))
