"""A file that several processes read in parts gives what one process finds in it."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kineto_texts import document, event, everything, kernel, kineto_2026, launch, long_run, write
from sidecars import Recorder, make_up, sidecar
from test_readers_kineto_fast import LAYOUTS, MANGLED, mangle, many, read, whole

from profilemate.parse.columns.int_table import IntTable
from profilemate.parse.readers import open_recording
from profilemate.parse.readers.kineto import parts
from profilemate.parse.recording.progress import no_progress
from profilemate.parse.recording.worker_processes import Share
from profilemate.schema.live import SIDECAR

pytestmark = pytest.mark.usefixtures("scanner")


class InProcess:
    """Stands for the processes of the parts: what they are given and what they say is pickled."""

    def __init__(self, what: str, tasks: Sequence[Any], count: int) -> None:
        assert len(tasks) == count
        self._tasks = pickle.dumps(tasks)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def results(self) -> Any:
        found = [task.run(no_progress) for task in pickle.loads(self._tasks)]
        return pickle.loads(pickle.dumps(found))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "Workers", InProcess)
    small(monkeypatch, 40)
    monkeypatch.setattr(parts, "_WINDOW", 1 << 12)


def small(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(parts, "SMALLEST", size)
    monkeypatch.setattr(parts, "SMALLEST_COMPILED", size)


def machine_of(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Share, "whole", lambda: Share(cores, 1 << 40))


def both(path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> tuple[Any, Any]:
    with monkeypatch.context() as patch:
        machine_of(1, patch)
        _, alone = read(path, 1 << 22)
    with monkeypatch.context() as patch:
        machine_of(count, patch)
        _, together = read(path, 1 << 22)
    return alone, together


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    many(),
    st.sampled_from(LAYOUTS),
    st.integers(2, 5),
    st.lists(MANGLED, max_size=1),
    st.integers(0, 2**32),
)
def test_parts_add_up(
    tmp_path: Path,
    in_process: None,
    events: list[dict[str, Any]],
    layout: Any,
    count: int,
    how: list[str],
    seed: int,
) -> None:
    raw = layout(whole(document(events))).encode()
    for one in how:
        raw = mangle(raw, one, random.Random(seed))
    path = tmp_path / "x.pt.trace.json"
    path.write_bytes(raw)
    with pytest.MonkeyPatch.context() as patch:
        alone, together = both(path, patch, count)
    assert alone == together


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cuts_are_found_and_used(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch, layout: Any
) -> None:
    path = write(tmp_path / "x.json", long_run(layout, 200))
    assert len(parts.cuts(path, 4)) == 3
    assert parts.read_parts(path, parts.cuts(path, 4), lambda _: None) is not None
    alone, together = both(path, monkeypatch, 4)
    assert alone == together
    assert len(alone["gpu"]) == 199


def test_what_only_looks_like_an_event_is_found_out(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half of the file is one event, which holds a list of what looks like events.
    inside = [kernel(i, i) for i in range(1, 60)]
    events = [launch(1, 5), event("cpu_op", "x", 3, args={"list": inside}), kernel(3, 5)]
    path = write(tmp_path / "x.json", json.dumps(document(events)))
    assert parts.read_parts(path, parts.cuts(path, 2), lambda _: None) is None
    alone, together = both(path, monkeypatch, 2)
    assert alone == together
    assert len(alone["gpu"]) == 1


def test_real_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.json", long_run(kineto_2026))
    small(monkeypatch, 1 << 16)
    machine_of(3, monkeypatch)
    assert len(parts.cuts(path, 3)) == 2
    assert parts.read_parts(path, parts.cuts(path, 3), lambda _: None) is not None
    recording = open_recording(path)
    found = everything(recording)
    machine_of(1, monkeypatch)
    assert found == everything(open_recording(path))


def test_a_process_that_fails_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.json", long_run(kineto_2026, 500))
    small(monkeypatch, 1 << 12)
    machine_of(2, monkeypatch)
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert parts.read_parts(path, parts.cuts(path, 2), lambda _: None) is None
    assert len(everything(open_recording(path))["gpu"]) == 499


def test_sidecars_are_read_in_one(tmp_path: Path, in_process: None) -> None:
    run = make_up(1)
    (path,) = sidecar(tmp_path, run, run.pids[0], run.said, Recorder())
    assert parts.cuts(path, 4) == []
    path.write_bytes(path.read_bytes().replace(SIDECAR.encode(), b"profilemate_another"))
    assert len(parts.cuts(path, 4)) == 3


def test_packed_and_small_files_are_read_in_one(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", long_run(kineto_2026, 50))
    assert parts.cuts(path, 8) == []
    path = write(tmp_path / "x.json.gz", long_run(kineto_2026, 50))
    assert parts.cuts(path, 8) == []


@given(
    st.lists(st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 2), max_size=5), max_size=5),
    st.booleans(),
)
def test_narrow_columns_hold_every_integer(
    batches: list[list[tuple[int, int]]], single: bool
) -> None:
    table, other = IntTable(("a", "b")), IntTable(("a", "b"))
    rows = [row for batch in batches for row in batch]
    for target in (table, other):
        for batch in batches:
            if single:
                for row in batch:
                    target.add(*row)
            else:
                target.extend(np.array(batch, dtype=np.int64).reshape(-1, 2).T)
    table.merge(other)
    assert len(table) == 2 * len(rows)
    pairs = [zip(b["a"].tolist(), b["b"].tolist(), strict=True) for b in table.batches(3)]
    assert [pair for batch in pairs for pair in batch] == rows * 2
    assert len(table) == 0
    table.extend(np.array(rows * 2, dtype=np.int64).reshape(-1, 2).T)
    columns = table.columns()
    assert list(zip(columns["a"].tolist(), columns["b"].tolist(), strict=True)) == rows * 2
