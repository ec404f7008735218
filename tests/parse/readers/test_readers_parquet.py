"""The reader of parquet exports: the same as the sqlite reader, from the same tables."""

from __future__ import annotations

import builtins
import random
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from build import PUSH_POP, START_UNIX_NS, Export, Row
from gpu_build import GpuExport
from parquet_build import convert
from same_trace import assert_same_trace

from profilemate.errors import InputError, ToolError
from profilemate.parse.pipeline import read_trace
from profilemate.parse.readers import open_recording
from profilemate.parse.readers.nsys import parquet as nsys_parquet
from profilemate.parse.recording.contract import Marker


def read(path: Path) -> list[Marker]:
    return sorted(open_recording(path).markers(), key=lambda m: (m.ts, m.text))


def rows(count: int) -> list[Row]:
    rng = random.Random(3)
    texts = ("op {}", "pm1.step step={}", "pm1.preempt", "pm2.step", "pm1.")
    return [
        Row(
            i,
            rng.choice(texts).format(i),
            rng.choice((None, i + 5, 10**10)),
            rng.choice((34, PUSH_POP, 75)),
            inline=rng.random() < 0.3,
        )
        for i in range(count)
    ]


def test_the_same_as_the_sqlite_export(tmp_path: Path) -> None:
    sqlite = Export(rows(500)).write(tmp_path / "x.sqlite")
    directory = convert(sqlite, tmp_path / "x_pqtdir")
    assert read(directory) == read(sqlite)
    assert len(read(directory)) > 100
    ours, theirs = open_recording(directory), open_recording(sqlite)
    list(ours.markers())
    list(theirs.markers())
    assert ours.info.kind == "nsys parquet export"
    assert ours.info.recorder == theirs.info.recorder
    assert ours.info.start_unix_ns == START_UNIX_NS
    assert ours.info.window == theirs.info.window
    assert ours.info.notes == theirs.info.notes
    assert ours.info.size == sum(p.stat().st_size for p in directory.iterdir())


@pytest.mark.parametrize(
    "types",
    [
        {"text": pa.large_string(), "value": pa.large_string()},
        {"value": pa.dictionary(pa.int32(), pa.string())},
        {"eventType": pa.int32(), "textId": pa.int32(), "id": pa.int64(), "start": pa.uint64()},
    ],
)
def test_other_types_of_the_same_columns(tmp_path: Path, types: dict[str, Any]) -> None:
    sqlite = Export(rows(50)).write(tmp_path / "x.sqlite")
    assert read(convert(sqlite, tmp_path / "x_pqtdir", types)) == read(sqlite)


@pytest.mark.parametrize("size", [1, 3, 2048])
@pytest.mark.parametrize("told", [True, False, ["start", "id"]])
def test_groups_of_few_rows_with_and_without_what_is_told_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, told: bool | list[str]
) -> None:
    monkeypatch.setattr(nsys_parquet, "_BATCH", 20)
    sqlite = GpuExport().write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(sqlite)) as db:  # some ranges without an end, the last one too
        db.execute("UPDATE NVTX_EVENTS SET end = NULL WHERE rowid > 9")
        db.commit()
    how: dict[str, Any] = {"row_group_size": size, "write_statistics": told}
    directory = convert(sqlite, tmp_path / "x_pqtdir", every_column=True, **how)
    left, right = read_trace([sqlite]), read_trace([directory])
    assert left.sources[0].window == right.sources[0].window
    columns = ["kind", "start", "node"]  # records of several tables come in turn
    left, right = (
        replace(
            t,
            sources=right.sources,
            gpu=t.gpu.sort_values(columns, kind="stable", ignore_index=True),
        )
        for t in (left, right)
    )
    assert_same_trace(left, right)


def test_an_export_of_a_few_tables_only(tmp_path: Path) -> None:
    sqlite = Export([Row(5, "pm1.preempt")]).write(tmp_path / "x.sqlite")
    directory = convert(sqlite, tmp_path / "x_pqtdir")
    for path in directory.iterdir():
        if path.stem not in ("NVTX_EVENTS", "StringIds"):
            path.unlink()
    assert len(read(directory)) == 1
    (directory / "StringIds.parquet").unlink()
    recording = open_recording(directory)
    assert list(recording.markers()) == []
    assert "It has no table StringIds" in recording.info.notes[0]


def test_without_pyarrow_the_pip_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = convert(Export(rows(3)).write(tmp_path / "x.sqlite"), tmp_path / "x_pqtdir")
    real = builtins.__import__

    def no(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no)
    with pytest.raises(ToolError) as caught:
        open_recording(directory)
    assert "pip install 'pyarrow" in caught.value.commands[0]


@pytest.mark.parametrize("table", ["StringIds", "NVTX_EVENTS"])
def test_a_file_that_was_cut_short(tmp_path: Path, table: str) -> None:
    directory = convert(Export(rows(30)).write(tmp_path / "x.sqlite"), tmp_path / "x_pqtdir")
    path = directory / f"{table}.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError) as caught:
        list(open_recording(directory).markers())
    assert caught.value.path == str(path)
    assert "damaged or was cut short" in caught.value.why
    assert "--type parquetdir" in caught.value.commands[0]


def test_a_directory_of_other_parquet_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "sales.parquet")
    with pytest.raises(InputError, match="There is no recording in this directory"):
        open_recording(tmp_path)


def test_pyarrow_is_not_loaded_for_other_formats() -> None:
    assert "profilemate.parse.readers.nsys.parquet" in sys.modules
    module = sys.modules["profilemate.parse.readers.nsys.parquet"]
    assert not any(name.startswith("pyarrow") for name in vars(module))
