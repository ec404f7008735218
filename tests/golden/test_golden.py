"""Every bundled recording gives the tables that lie beside it, byte for byte."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from places import DATA

from profilemate.parse.pipeline import parse_session
from profilemate.scrub.scrub import find_leaks

RECORDINGS = sorted(DATA.glob("*/recording.*"))
VOLATILE = ("output_dir", "sources", "versions")


def comparable(folder: Path) -> dict[str, str]:
    """The files of a session, without what tells where and by which version it was made."""
    files = {p.name: p.read_text(encoding="utf-8") for p in sorted(folder.iterdir())}
    metadata = json.loads(files["metadata.json"])
    kept = {key: value for key, value in metadata.items() if key not in VOLATILE}
    files["metadata.json"] = json.dumps(kept, indent=2, sort_keys=True) + "\n"
    return files


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sessions are named by local time: here by one that is the same everywhere."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_there_is_something_to_compare() -> None:
    assert [p.parent.name for p in RECORDINGS] == ["vllm_cpu_server"]


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda p: p.parent.name)
def test_the_tables_are_the_golden_ones(
    recording: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    session = parse_session([recording], tmp_path / "session")
    found = comparable(session.path)
    expected = recording.parent / "expected"
    if pytestconfig.getoption("update_references"):
        shutil.rmtree(expected, ignore_errors=True)
        expected.mkdir()
        for name, text in found.items():
            (expected / name).write_text(text, encoding="utf-8")
    golden = {p.name: p.read_text(encoding="utf-8") for p in sorted(expected.iterdir())}
    assert list(found) == list(golden)
    for name, text in found.items():
        assert text == golden[name], name


def test_the_bundled_run_shows_every_kv_event() -> None:
    expected = DATA / "vllm_cpu_server" / "expected"
    events = pd.read_csv(expected / "kv_block_events.csv")
    assert set(events["op"]) >= {"alloc", "cache", "evict", "free", "touch"}
    for name in ("kv_preemptions", "kv_cache_evictions", "kv_prefix_cache", "kv_cache_usage"):
        assert len(pd.read_csv(expected / f"{name}.csv")) > 5, name


# What Nsight Systems writes about a machine into a report, and what must not be in a bundled one.
WORDS = ("/home/", "/root", "/work", "/usr/", "/tmp/", "PATH=", "HOME=", "LD_LIBRARY", "python3")
HOST_WORDS = ("localhost", "hostname", "vllm.entrypoints", "--model")


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda p: p.parent.name)
def test_nothing_bundled_tells_of_a_machine(recording: Path) -> None:
    import socket

    words = [*WORDS, *HOST_WORDS, *([host] if len(host := socket.gethostname()) > 3 else [])]
    assert find_leaks(recording, words) == []
    # The search itself finds what is there.
    assert find_leaks(recording, ["kv.alloc"]) != []
