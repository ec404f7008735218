"""Scrubbing: what the readers need survives, what tells of the machine does not."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from build import PUSH_POP, VERSIONS, Export, Row
from decoded import decode_recordings
from leaks import find_leaks
from places import ROOT
from recorded import NSYS_VARIABLES, Recorded, nsys_of, real_traces, record

from profilemate import schema
from profilemate.errors import InputError, NotThisFormatError, OutputError
from profilemate.parse.readers import open_recording
from profilemate.parse.trace.trace import Trace
from profilemate.schema import Event, Value
from profilemate.scrub.scrub import scrub

HOST = "box-7.lab"
SECRETS = (
    HOST,
    "host-of-a-friend",
    "/home/ann",
    "HF_TOKEN",
    "aten::secret",
    "--api-key",
    "bashful",
)
SESSION: dict[str, Value] = {"role": "engine", "pid": 5, "host": HOST, "vllm": "0.11"}


def leaky(version: str = "2023.4.4", *, inline: bool = False, limit: int = 110) -> Export:
    """An export with everything in it that nsys puts there, and our messages among it."""
    session = Event("session", SESSION, {"more": "x y"})
    texts = [
        schema.encode(session, t=990),
        schema.encode_batch([schema.encode_event(session), "preempt req=a"], t=995, seq=1),
        "pm1.session host=" + HOST + " broken",
        "pm1.preempt req=session",
    ]
    texts += schema.split(
        schema.encode_batch(
            [schema.encode_event(session), "kv.free ids=1-9 req=" + "r" * 99], t=999, seq=2
        ),
        number=4,
        limit=limit,
    )
    rows = [Row(1000 + i, text, inline=inline) for i, text in enumerate(texts)]
    rows += [Row(2000, "aten::secret", 2500, PUSH_POP), Row(3, "bashful", type=75)]
    meta: dict[str, object] = {
        "name": "PROCESS_0:ENVIRONMENT_VARIABLE",
        "value": "HF_TOKEN=hunter2",
    }
    tables: dict[str, list[dict[str, object]]] = {
        "StringIds": [
            {"id": 9000, "value": "cudaGraphLaunch_v10000"},
            {"id": 9001, "value": "void gemm<float>(int)"},
            {"id": 9002, "value": "/home/ann/stdout of --api-key"},
        ],
        "TARGET_INFO_SYSTEM_ENV": [
            {"devStateName": "Local (CLI)", "name": "Hostname", "value": HOST},
            {
                "devStateName": "x",
                "name": "DeviceEnvironment",
                "value": "HOME=/home/ann;HF_TOKEN=1",
            },
        ],
        "PROCESSES": [{"globalPid": 1, "pid": 1, "name": "bashful"}],
        "ThreadNames": [{"nameId": 9002, "priority": 1, "globalTid": 1}],
        "ProcessStreams": [{"filenameId": 9002, "contentId": 9002}],
        "CUPTI_ACTIVITY_KIND_RUNTIME": [{"start": 1010, "end": 1020, "nameId": 9000}],
        "CUPTI_ACTIVITY_KIND_KERNEL": [{"start": 1030, "end": 1200, "demangledName": 9001}],
    }
    if version == "2023.4.4":
        tables["META_DATA_CAPTURE"] = [
            meta,
            {"name": "CUDA_GRAPH_TRACE_OPTIONS:MODE", "value": "Graph"},
        ]
    return Export(rows, version, tables=tables)


def decoded(path: Path, nsys: Path | None = None) -> Trace:
    return decode_recordings([open_recording(path, nsys=nsys)])


def assert_same_but_for_the_host(a: Trace, b: Trace) -> None:
    assert (a.counts, a.window, a.start_unix_ns) == (b.counts, b.window, b.start_unix_ns)
    assert (a.broken, a.unfinished, a.clock_error_ns) == (b.broken, b.unfinished, b.clock_error_ns)
    for name, frame in a.frames.items():
        left, right = (f.drop(columns="host", errors="ignore") for f in (frame, b.frames[name]))
        pd.testing.assert_frame_equal(left, right)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_everything_we_read_survives_and_nothing_else(
    tmp_path: Path, version: str, inline: bool
) -> None:
    source = leaky(version, inline=inline).write(tmp_path / "x.sqlite")
    target = tmp_path / "scrubbed.sqlite"
    assert {w for w in SECRETS if find_leaks(source, [w])} == set(SECRETS)
    scrub(source, target)
    assert find_leaks(target, [*SECRETS, "hunter2", "Local (CLI)"]) == []
    before, after = decoded(source), decoded(target)
    assert before.counts == {"session": 3, "preempt": 2, "kv.free": 1}
    assert_same_but_for_the_host(before, after)
    assert set(before.frames["session"]["host"]) == {HOST}
    assert set(after.frames["session"]["host"]) == {"scrubbed"}
    assert after.sources[0].recorder == before.sources[0].recorder
    assert after.sources[0].notes[0].startswith("Scrubbed by profilemate")


def test_gpu_work_keeps_its_names_and_numbers(tmp_path: Path) -> None:
    source = leaky().write(tmp_path / "x.sqlite")
    scrub(source, tmp_path / "y.sqlite")
    with closing(sqlite3.connect(tmp_path / "y.sqlite")) as db:
        sql = (
            "SELECT start, end, correlationId, value FROM CUPTI_ACTIVITY_KIND_{} "
            "JOIN StringIds ON id = {}"
        )
        kernels = db.execute(sql.format("KERNEL", "demangledName")).fetchall()
        calls = db.execute(sql.format("RUNTIME", "nameId")).fetchall()
        capture = db.execute("SELECT * FROM META_DATA_CAPTURE").fetchall()
    assert kernels == [(1030, 1200, None, "void gemm<float>(int)")]
    assert calls == [(1010, 1020, None, "cudaGraphLaunch_v10000")]
    assert capture == [("CUDA_GRAPH_TRACE_OPTIONS:MODE", "Graph")]


def test_of_what_nsys_complained_only_the_number_is_left(tmp_path: Path) -> None:
    source = Export([Row(5, "pm1.preempt")]).write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(source)) as db:
        db.execute("CREATE TABLE DIAGNOSTIC_EVENT (timestamp INTEGER, severity INTEGER, text TEXT)")
        db.execute("INSERT INTO DIAGNOSTIC_EVENT VALUES (1, 2, 'cannot open /home/ann/x')")
        db.commit()
    scrub(source, tmp_path / "y.sqlite")
    assert find_leaks(tmp_path / "y.sqlite", ["ann"]) == []
    assert "nsys warning: scrubbed" in open_recording(tmp_path / "y.sqlite").info.notes


def test_a_host_where_two_parts_of_a_message_meet_is_not_let_through(tmp_path: Path) -> None:
    # A session leads its batch, so this takes parts much shorter than ours are.
    whole = leaky(limit=10_000).rows[4].text
    limit = whole.index(HOST) + len("pm1.part number=4 part=999999/999999 ::") + 3
    source = leaky(limit=limit).write(tmp_path / "x.sqlite")
    with pytest.raises(OutputError, match="A host's name could not be removed"):
        scrub(source, tmp_path / "y.sqlite")
    assert not (tmp_path / "y.sqlite").exists()


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    source = leaky().write(tmp_path / "x.sqlite")
    for name in ("a", "b"):
        scrub(source, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    scrub(tmp_path / "a", tmp_path / "again")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "again").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "again", "b", "x.sqlite"]


@pytest.mark.parametrize(
    "without", [("META_DATA_EXPORT",), ("StringIds",), ("NVTX_EVENTS",), ("ANALYSIS_DETAILS",)]
)
def test_an_export_that_lacks_a_table(tmp_path: Path, without: tuple[str, ...]) -> None:
    export = leaky(inline=True)
    export.without = without
    source = export.write(tmp_path / "x.sqlite")
    scrub(source, tmp_path / "y.sqlite")
    assert find_leaks(tmp_path / "y.sqlite", SECRETS) == []
    assert_same_but_for_the_host(decoded(source), decoded(tmp_path / "y.sqlite"))


def test_a_target_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    source = leaky().write(tmp_path / "x.sqlite")
    target = tmp_path / "y.sqlite"
    target.write_text("precious")
    with pytest.raises(OutputError, match="The target exists"):
        scrub(source, target)
    assert target.read_text() == "precious"
    scrub(source, target, force=True)
    assert len(list(open_recording(target).markers())) > 5
    before = source.read_bytes()
    with pytest.raises(OutputError, match="would replace its source"):
        scrub(source, source, force=True)
    assert source.read_bytes() == before


def test_what_cannot_be_scrubbed(tmp_path: Path) -> None:
    target = tmp_path / "y.sqlite"
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE cookies (host TEXT)")
    with pytest.raises(NotThisFormatError, match="not an export of Nsight Systems"):
        scrub(other, target)
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(NotThisFormatError, match="not a recording"):
        scrub(tmp_path / "x.png", target)
    with pytest.raises(InputError, match="No such file"):
        scrub(tmp_path / "nowhere.sqlite", target)
    source = leaky().write(tmp_path / "x.sqlite")
    with pytest.raises(OutputError, match="Cannot write the scrubbed copy"):
        scrub(source, tmp_path / "no" / "such" / "folder.sqlite")
    source.write_bytes(source.read_bytes()[:-5000])
    with pytest.raises(InputError, match="Cannot read the sqlite export"):
        scrub(source, target)
    assert not target.exists()
    assert [p.name for p in tmp_path.glob("*.part")] == []


def test_a_parquet_export_is_refused(tmp_path: Path) -> None:
    (tmp_path / "NVTX_EVENTS.parquet").write_bytes(b"PAR1")
    with pytest.raises(NotThisFormatError) as caught:
        scrub(tmp_path, tmp_path / "y.sqlite")
    assert caught.value.what == "An nsys parquet export cannot be scrubbed"


def test_a_torch_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt.trace.json"
    path.write_text('{"traceEvents": [{"ph": "X", "ts": 1, "name": "a"}]}')
    with pytest.raises(NotThisFormatError) as caught:
        scrub(path, tmp_path / "y.sqlite")
    assert caught.value.what == "A torch profiler trace cannot be scrubbed"
    assert caught.value.commands == (f"profilemate parse {path} -o session",)


# ---------------------------------------------------------------------- looking for leaks


def test_leaks_are_found_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("Hello BOX-7.lab")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(b"path /home/ann/x"))
    (tmp_path / "box-7.lab.txt").write_text("")
    (tmp_path / "sub").mkdir()
    leaky().write(tmp_path / "sub" / "x.sqlite")
    leaks = find_leaks(tmp_path, ["box-7.lab", "/home/ann"])
    assert f"{tmp_path}/plain.txt: its bytes have 'box-7.lab'" in leaks
    assert f"{tmp_path}/packed.gz: its content has '/home/ann'" in leaks
    assert f"{tmp_path}/box-7.lab.txt: the file's name has 'box-7.lab'" in leaks
    assert f"{tmp_path}/sub/x.sqlite: table TARGET_INFO_SYSTEM_ENV has '/home/ann'" in leaks
    assert f"{tmp_path}/sub/x.sqlite: table StringIds has 'box-7.lab'" in leaks
    assert find_leaks(tmp_path, ["", "not there"]) == []


def test_a_word_is_found_as_our_messages_spell_it(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    Export([Row(1, schema.encode(Event("session", {"host": "böx 7"})))]).write(path)
    assert find_leaks(path, ["böx 7"])
    assert not find_leaks(path, ["box 7"])


def test_deleted_rows_are_found_too(tmp_path: Path) -> None:
    path = Export([Row(1, "pm1.preempt req=top-secret")]).write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA secure_delete=OFF")
        db.execute("DELETE FROM StringIds")
        db.commit()
    assert find_leaks(path, ["top-secret"]) == [f"{path}: its bytes have 'top-secret'"]


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot look through this"):
        find_leaks(tmp_path / "nowhere", ["x"])


# ---------------------------------------------------------------------- real recordings


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recorded]:
    return cache(lambda release: record(nsys_of(release), tmp_path_factory.mktemp(release)))


@pytest.mark.real
@pytest.mark.parametrize("release", sorted(NSYS_VARIABLES))
def test_a_real_report(recordings: Callable[[str], Recorded], tmp_path: Path, release: str) -> None:
    recorded = recordings(release)
    words = [
        "box-7",
        "do-not-tell-4711",
        "SECRET_TOKEN",
        str(ROOT),
        str(recorded.report.parent),
        str(recorded.nsys),
        "emit_messages.py",
        "aten::someone_else",
    ]
    source = recorded.export("sqlite", "all.sqlite", "--force-overwrite=true")
    # 2022.4 leaves the command line in the report and out of the export.
    assert {w for w in words if find_leaks(source, [w])} >= set(words) - {"emit_messages.py"}
    target = tmp_path / "scrubbed.sqlite"
    scrub(recorded.report, target, nsys=recorded.nsys, cache_dir=tmp_path)
    assert find_leaks(target, words) == []
    assert_same_but_for_the_host(decoded(source), decoded(target))


def test_a_recording_of_real_gpus(tmp_path: Path) -> None:
    source = real_traces() / "nsys_h100_2gpu_no_graphs.sqlite"
    target = tmp_path / "scrubbed.sqlite"
    scrub(source, target)
    words = ["rich-wsl", "DESKTOP-KBEMEQS", "/home/", "FastVideo", "MODAL", "aten::"]
    assert {w for w in words if find_leaks(source, [w])} == set(words)
    assert find_leaks(target, words) == []
    tables = "KERNEL", "RUNTIME", "MEMCPY", "MEMSET", "SYNCHRONIZATION"
    sql = "SELECT start, end, correlationId FROM CUPTI_ACTIVITY_KIND_{} ORDER BY 1, 2, 3"
    names = (
        "SELECT correlationId, value FROM CUPTI_ACTIVITY_KIND_KERNEL "
        "JOIN StringIds ON id = shortName ORDER BY 1, 2"
    )
    uri = f"{source.as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as a, closing(sqlite3.connect(target)) as b:
        for query in [*(sql.format(t) for t in tables), names]:
            rows = a.execute(query).fetchall()
            assert rows
            assert rows == b.execute(query).fetchall()
    assert decoded(target).window == decoded(source).window
