"""The two doors, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from listsink import LAYOUTS

from profilemate.annotate import plugin

ROOT = Path(__file__).parents[2]
REPORT = """
import sys
from profilemate import annotate
import vllm.v1.core.block_pool as m
print(hasattr(m.BlockPool.__dict__["get_new_blocks"], "__wrapped__"))
"""


def python(
    code: str, *path: Path | str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PROFILEMATE", "VLLM"))}
    full = {**clean, "PYTHONPATH": os.pathsep.join(map(str, path)), **(env or {})}
    return subprocess.run(
        [sys.executable, "-c", code], env=full, capture_output=True, text=True, check=False
    )


def test_the_plugin_is_announced_and_does_nothing_without_a_recorder() -> None:
    found = [e for e in entry_points(group="vllm.general_plugins") if e.name == "profilemate"]
    assert [e.value for e in found] == ["profilemate.annotate.plugin:register"]
    code = (
        "import sys; from profilemate.annotate.plugin import register; register();"
        "print([m for m in ('wrapt', 'nvtx', 'pandas', 'typer') if m in sys.modules])"
    )
    assert python(code, ROOT).stdout == "[]\n"
    recorded = python(code, ROOT, env={"NSYS_PROFILING_SESSION_ID": "1"})
    assert recorded.stdout == "['wrapt']\n"


def test_register_never_raises(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(plugin, "install", broken)
    plugin.register()
    assert "RuntimeError: broken" in capsys.readouterr().err


def test_sitecustomize_waits_for_vllm() -> None:
    code = "import sys; print('wrapt' in sys.modules, 'profilemate.annotate.emit' in sys.modules)"
    idle = python(code, plugin.door(), ROOT)
    assert (idle.stdout, idle.stderr) == ("False False\n", "")
    used = python(REPORT, plugin.door(), ROOT, LAYOUTS)
    assert (used.stdout, used.stderr) == ("True\n", "")


def test_sitecustomize_needs_nothing_but_its_folder() -> None:
    # -S keeps the clone that is installed here out; the folder finds its package by itself.
    site = Path(sys.prefix) / "lib"
    packages = next(site.glob("python3*/site-packages"))
    links = [p for p in packages.iterdir() if p.name.partition("-")[0] in ("wrapt",)]
    assert links
    code = "import sitecustomize\n" + REPORT
    clean = {"PATH": os.environ["PATH"]}
    path = os.pathsep.join(map(str, (plugin.door(), LAYOUTS)))
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.append({str(packages)!r})\n{code}"],
        env={**clean, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"


def test_verbose_says_what_the_readme_promises() -> None:
    done = python(REPORT, plugin.door(), ROOT, LAYOUTS, env={"VLLM_PROFILING_VERBOSE": "1"})
    assert plugin.LOADED in done.stderr.splitlines()
    assert "annotating vLLM in process" in done.stderr
    quiet = python("print(1)", plugin.door(), ROOT, env={"VLLM_PROFILING_VERBOSE": "1"})
    assert quiet.stderr == ""


def test_sitecustomize_hands_on_to_the_one_it_hides(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.stdout.write('theirs ')\nMINE = 7\n"
    )
    code = "import sitecustomize; print(sitecustomize.MINE)"
    done = python(code, plugin.door(), tmp_path, ROOT)
    assert done.stdout == "theirs 7\n"


def test_off_closes_both_doors() -> None:
    done = python(REPORT, plugin.door(), ROOT, LAYOUTS, env={"PROFILEMATE": "off"})
    assert done.stdout == "False\n"


def test_children_know_that_the_door_was_taken() -> None:
    done = python("import os; print(os.environ['PROFILEMATE_DOOR'])", plugin.door(), ROOT)
    assert done.stdout == "sitecustomize\n"


def test_an_environment_without_wrapt_is_told_and_vllm_goes_on(tmp_path: Path) -> None:
    (tmp_path / "wrapt.py").write_text("raise ImportError('no wrapt here')\n")
    done = python(REPORT, plugin.door(), tmp_path, ROOT, LAYOUTS)
    assert done.stdout == "False\n"
    assert "no wrapt here" in done.stderr


def test_importing_profilemate_loads_nothing_else() -> None:
    code = """
import sys
before = set(sys.modules)
import profilemate
print(sorted(set(sys.modules) - before))
"""
    assert python(code, ROOT).stdout == "['profilemate']\n"


def test_the_wheel_carries_the_door_and_the_marker(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "profilemate/annotate/door/sitecustomize.py" in names
    assert "profilemate/py.typed" in names
    assert "profilemate/parse/report/assets/page.html" in names
    assert not [n for n in names if n.startswith(("tests", "scripts"))]
