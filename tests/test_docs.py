"""Documents that the code can check."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import ModuleType

import bench_document
import docs_cli
import docs_findings
import docs_metrics
import docs_tables
import pytest
from places import ROOT

from profilemate.parse.tables import TABLES


def test_the_page_of_tables_is_up_to_date() -> None:
    page = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert page == docs_tables.text(), "run scripts/docs/docs_tables.py"


@pytest.mark.parametrize(
    "script", [docs_cli, docs_findings, docs_metrics], ids=lambda m: m.__name__
)
def test_the_pages_made_from_the_code_are_up_to_date(script: ModuleType) -> None:
    page = (ROOT / "docs" / script.TARGET.name).read_text(encoding="utf-8")
    assert page == script.text(), f"run scripts/docs/{script.__name__}.py"


def test_the_readme_names_every_table() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for table in TABLES.values():
        assert f"`{table.file}`" in readme, table.file


def documents() -> list[Path]:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return [ROOT / name for name in tracked.stdout.splitlines()]


@pytest.mark.parametrize("page", documents(), ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_page_of_live_sessions_names_every_setting() -> None:
    page = (ROOT / "docs" / "live.md").read_text(encoding="utf-8")
    sources = "".join(
        p.read_text("utf-8") for p in (ROOT / "profilemate" / "annotate").rglob("*.py")
    )
    # Those that are about recorders and launches are in the README.
    known = set(re.findall(r"\"((?:PROFILEMATE|VLLM_PROFILING)_[A-Z_]+)\"", sources))
    assert known - {"PROFILEMATE_LAUNCHES", "PROFILEMATE_PLUGINS"} == set(
        re.findall(r"`((?:PROFILEMATE|VLLM_PROFILING)_[A-Z_]+)", page)
    )


@pytest.mark.parametrize("folder", ["profilemate", "profilemate/parse"])
def test_the_architecture_page_is_the_folder_listing(folder: str) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.partition(f"| in `{folder}/` |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    entries = {p.name + "/" * p.is_dir() for p in (ROOT / folder).iterdir()}
    # The first and the last are Python's own, the third is the public face of another one.
    assert listed == entries - {
        "__init__.py",
        "__init__.pyi",
        "__main__.py",
        "py.typed",
        "extend.py",
        "__pycache__/",
    }


def test_parse_is_few_rooms() -> None:
    parse = ROOT / "profilemate" / "parse"
    assert len([p for p in parse.iterdir() if p.name != "__pycache__"]) <= 16


def test_each_benchmark_writes_its_own_chapter(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    bench_document.put("One", "first\n\n## detail\n", page)
    bench_document.put("Two", "second", page)
    bench_document.put("One", "again\n\n| a # b |", page)
    assert page.read_text() == "# One\n\nagain\n\n| a # b |\n\n# Two\n\nsecond\n"
