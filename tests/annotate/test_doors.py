"""The two doors, in processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import wrapt
from places import LAYOUTS, ROOT

from profilemate import annotate
from profilemate.annotate import plugin

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
    assert python(code).stdout == "[]\n"
    recorded = python(code, env={"NSYS_PROFILING_SESSION_ID": "1"})
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
    assert (used.stdout, used.stderr) == ("True\n", annotate.LOADED + "\n")


def test_sitecustomize_needs_nothing_but_its_folder() -> None:
    # -S keeps the clone that is installed here out; the folder finds its package by itself.
    packages = Path(wrapt.__file__).parents[1]
    code = "import sitecustomize\n" + REPORT
    clean = {"PATH": os.environ["PATH"]}
    path = os.pathsep.join(map(str, (plugin.door(), LAYOUTS)))
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.append({str(packages)!r})\n{code}"],
        env={**clean, "PYTHONPATH": path},
        cwd=LAYOUTS,  # not the clone's root, whose own door would be found first
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"


def test_it_says_what_the_readme_promises(tmp_path: Path) -> None:
    verbose = {"VLLM_PROFILING_VERBOSE": "1"}
    done = python(REPORT, plugin.door(), LAYOUTS, env=verbose)
    assert annotate.LOADED in done.stderr.splitlines()
    assert "annotating vLLM in process" in done.stderr
    assert "VLLM_PROFILING_VERBOSE is set" in done.stderr
    assert python("print(1)", plugin.door(), env=verbose).stderr == ""
    # Where a recorder is the reason, nobody looks for the line.
    recorded = python(
        "from profilemate.annotate.plugin import register; register()",
        env={"NSYS_PROFILING_SESSION_ID": "1"},
    )
    assert recorded.stderr == ""


def test_a_child_of_the_server_does_not_say_it_again(tmp_path: Path) -> None:
    code = """
import multiprocessing, sys
import vllm  # in a spawned child, before multiprocessing has told it whose child it is
from profilemate import annotate
def child(): print(bool(annotate.status()))
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        process = multiprocessing.get_context(method).Process(target=child)
        process.start(); process.join()
    import subprocess  # a second server, started by a program that uses vLLM: a run of its own
    subprocess.run([sys.executable, "-c", "import vllm"])
"""
    script = tmp_path / "server.py"
    script.write_text(code)
    env = {**os.environ, "PYTHONPATH": f"{plugin.door()}{os.pathsep}{LAYOUTS}"}
    done = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["True"] * 3, done.stderr
    assert done.stderr.splitlines() == [annotate.LOADED] * 2


def test_the_root_of_a_clone_is_a_door_when_it_is_named(tmp_path: Path) -> None:
    # The seed's own check, and its start-up message.
    seen = python("import sys; print('sitecustomize' in sys.modules)", ROOT)
    assert (seen.stdout, seen.stderr) == ("True\n", "")
    used = python(REPORT, ROOT, LAYOUTS)
    assert (used.stdout, used.stderr) == ("True\n", annotate.LOADED + "\n")
    # An editable install has the clone on the path as well: that asks for nothing.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import sitecustomize, os;"
    idle = python(code + "print('PROFILEMATE_DOOR' in os.environ)")
    assert (idle.stdout, idle.stderr) == ("False\n", "")


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 0, 1)])
def test_every_order_of_doors_runs_each_once(order: tuple[int, ...], tmp_path: Path) -> None:
    theirs = "import sys; sys.stdout.write('theirs ')\nMINE = 7\n"
    (tmp_path / "sitecustomize.py").write_text(theirs)
    places = [ROOT, plugin.door(), tmp_path]
    code = "import sys; print(sum(type(f).__name__ == '_Watcher' for f in sys.meta_path))"
    done = python(code, *(places[i] for i in order))
    # Theirs, where it is first, hides ours, as it hides any other.
    assert done.stdout == f"theirs {0 if order[0] == 2 else 1}\n", done.stderr


GREEDY = """
import importlib.machinery, importlib.util, os, sys
sys.stdout.write({name!r} + " ")
here = os.path.dirname(os.path.abspath(__file__))
others = [p for p in sys.path if os.path.abspath(p or ".") != here]
spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
if spec is not None and not getattr(sys, "_calls", 0) > 9:
    sys._calls = getattr(sys, "_calls", 0) + 1
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)
"""
"""One of another tool that hands on to any other but itself, as profilemate's once did."""

PLAIN = "import sys; sys.stdout.write({name!r} + ' ')"


def clone(folder: Path) -> Path:
    """The parts of a clone that a door needs."""
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "profilemate", folder / "profilemate", ignore=leave)
    shutil.copy(ROOT / "sitecustomize.py", folder)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders for `PYTHONPATH`: a clone is a capital, its inner door is `a`, others are named."""
    base = tmp_path_factory.mktemp("places")
    found = {name: clone(base / name) for name in "ABC"}
    found["a"] = found["A"] / "profilemate" / "annotate" / "door"
    for name, text in (("f", PLAIN), ("p", PLAIN), ("g", GREEDY)):
        found[name] = base / f"foreign_{name}"
        found[name].mkdir()
        (found[name] / "sitecustomize.py").write_text(text.format(name=name))
    return found


@pytest.mark.parametrize(
    # What is on PYTHONPATH, in order; a plain one ends the chain, as it does without us.
    ("order", "said", "watches"),
    [
        ("AB", "", 1),
        ("ABC", "", 1),
        ("ABCf", "f", 1),
        ("AfB", "f", 1),
        ("ABA", "", 1),
        ("aABf", "f", 1),
        ("AaBaf", "f", 1),
        ("BAaf", "f", 1),
        ("fAB", "f", 0),
        ("ABfp", "f", 1),
        ("gABf", "gf", 1),
        ("gAB", "g", 1),
        ("AgB", "g", 1),
        ("AgBf", "gf", 1),
        ("ABg", "g", 1),
        ("AgBCf", "gf", 1),
    ],
)
def test_any_number_of_clones_and_others_run_each_once(
    order: str, said: str, watches: int, places: dict[str, Path]
) -> None:
    code = "import sys; print(sum(type(f).__name__ == '_Watcher' for f in sys.meta_path))"
    done = python(code, *(places[name] for name in order))
    assert done.stderr == ""
    assert done.stdout.split() == [*said, str(watches)]


def test_of_two_clones_the_first_annotates(places: dict[str, Path]) -> None:
    code = REPORT + "print(annotate.__file__)"
    done = python(code, places["B"], places["A"], LAYOUTS)
    assert done.stderr == annotate.LOADED + "\n"
    assert done.stdout.splitlines() == [
        "True",
        str(places["B"] / "profilemate" / "annotate" / "__init__.py"),
    ]


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
    assert python(code).stdout == "['profilemate']\n"


def test_the_wheel_carries_the_door_and_the_marker(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "profilemate/annotate/door/sitecustomize.py" in names
    assert "profilemate/py.typed" in names
    assert not [n for n in names if n.startswith(("tests", "scripts", "sitecustomize"))]


CONFIGURED = """
import os, sys, types
import vllm.config
from profilemate import annotate
from profilemate.annotate.plugin import register
register()
register()
def say(kind):
    config = vllm.config.VllmConfig(types.SimpleNamespace(profiler=kind))
    print(kind, config.complete, len(annotate.status()) > 0, os.environ.get("PROFILEMATE_TORCH"),
          'wrapt' in sys.modules)
say(None)
say("cuda")
say("torch")
"""


def test_a_torch_profiler_in_vllm_s_configuration_is_a_recorder() -> None:
    done = python(CONFIGURED, LAYOUTS)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "None True False None False",
        "cuda True False None False",
        "torch True True 1 True",
    ]
    off = python(CONFIGURED, LAYOUTS, env={"PROFILEMATE": "off"})
    assert off.stdout.splitlines()[-1] == "torch True False None False"


def test_the_processes_that_follow_are_told_of_a_torch_profiler() -> None:
    child = """
import subprocess, sys
code = '''
import os
import vllm.config
from profilemate import annotate
from profilemate.annotate.plugin import register
register()
print(annotate.Settings.from_env(os.environ).torch, len(annotate.status()) > 0)
'''
sys.stdout.flush()
subprocess.run([sys.executable, "-c", code])
"""
    assert python(CONFIGURED + child, LAYOUTS).stdout.splitlines()[-1] == "True True"
    # The door for PYTHONPATH has its hooks in already, and leaves word all the same.
    door = "import vllm.config, types, os; vllm.config.VllmConfig(types.SimpleNamespace(profiler="
    door += "'torch')); print(os.environ.get('PROFILEMATE_TORCH'))"
    assert python(door, plugin.door(), LAYOUTS).stdout == "1\n"


def test_a_configuration_that_fails_fails_as_before() -> None:
    code = """
import vllm.config
from profilemate.annotate.plugin import register
def broken(self):
    raise ValueError("no such model")
vllm.config.VllmConfig.__post_init__ = broken
register()
try:
    vllm.config.VllmConfig()
except ValueError as e:
    print(e)
"""
    done = python(code, LAYOUTS)
    assert (done.stdout, done.stderr) == ("no such model\n", "")
