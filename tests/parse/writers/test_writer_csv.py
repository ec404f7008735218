"""The session directory: every byte of it, and the lines that users have in their scripts."""

from __future__ import annotations

import json
import os
import subprocess
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from frames import At, at, trace_of
from hypothesis import given
from hypothesis import strategies as st

from profilemate.parse.tables import TABLES
from profilemate.parse.tables.pools import usage
from profilemate.parse.writers import CsvSession
from profilemate.parse.writers.spelling import SPELLINGS

METADATA = {"start_time": "2026-01-24T12:34:56+00:00", "session_id": "20260124_123456"}

FULL: dict[str, Any] = {
    "mode": "FULL",
    "num_tokens": 256,
    "num_reqs": 128,
    "uniform": True,
    "has_lora": False,
}
PIECEWISE: dict[str, Any] = {"mode": "PIECEWISE", "num_tokens": 1024, "uniform": False}


def kv(ts: int, op: str, used: int, **values: Any) -> At:
    return at(ts, f"kv.{op}", pool=0, used=used, **values)


EVENTS = [
    at(0, "kv.pool", pool=0, num_blocks=4096, caching=True),
    at(2_344_500_000, "graph.capture", **FULL),
    at(3_456_000_000, "graph.capture", **PIECEWISE),
    *(at(5_000_000_000 + i, "graph.replay", **FULL, step=i, dur=1_234_567) for i in range(3)),
    *(at(6_000_000_000 + i, "graph.replay", **PIECEWISE, step=9, piece=i) for i in range(3)),
    kv(123_000_000, "alloc", 625, ids=tuple(range(1, 626)), req='a "b", c'),
    kv(200_000_000, "cache", 625, ids=(1, 2), req="x"),
    kv(300_000_000, "free", 0, ids=(2, 1, 7), freed=(2, 1)),
    kv(456_000_000, "evict", 1329, ids=(2, 1), cause="alloc"),
    kv(456_000_000, "alloc", 1329, ids=(2, 1)),
    at(1, "kv.lookup", req="r", tokens=3, hits=1),
]


def tables(events: list[At]) -> dict[str, pd.DataFrame]:
    trace = trace_of(events)
    return {name: table.build(trace) for name, table in TABLES.items()}


def write(out: Path, events: list[At] | None = None, *, force: bool = False, **kwargs: Any) -> Path:
    frames = tables(EVENTS if events is None else events)
    return CsvSession(out, TABLES, force=force).write(frames, METADATA, **kwargs)


def tree(directory: Path) -> dict[str, bytes]:
    paths = sorted(p for p in directory.rglob("*") if not p.is_dir())
    return {str(p.relative_to(directory)): p.read_bytes() for p in paths}


# --------------------------------------------------------------------------- contents


def test_the_standard_files(tmp_path: Path) -> None:
    out = write(tmp_path / "session")
    files = {name: content.decode() for name, content in tree(out).items()}
    assert files["cuda_graph_captures.csv"] == (
        "runtime_mode,num_tokens,num_reqs,uniform,has_lora,capture_time_sec\n"
        "FULL,256,128,True,False,2.345\n"
        "PIECEWISE,1024,None,False,None,3.456\n"
    )
    assert files["cuda_graph_usage.csv"] == (
        "runtime_mode,num_tokens,num_reqs,uniform,has_lora,replay_count\n"
        "FULL,256,128,True,False,3\n"
        "PIECEWISE,1024,None,False,None,1\n"
    )
    assert files["cuda_graph_timeline.csv"].splitlines()[:2] == [
        "timestamp_sec,descriptor,duration_ms",
        '5.000,"FULL:BatchDescriptor(num_tokens=256, num_reqs=128, uniform=True, has_lora=False)",'
        "1.235",
    ]
    assert files["kv_cache_usage.csv"] == (
        "timestamp_sec,usage_pct,num_blocks,total_blocks\n"
        "0.123,15.26,625,4096\n"
        "0.300,0.00,0,4096\n"
        "0.456,32.45,1329,4096\n"
    )
    assert files["kv_cache_evictions.csv"] == (
        "timestamp_sec,lifetime_sec,idle_sec\n0.456,0.333,0.333\n0.456,0.333,0.333\n"
    )
    assert files["kv_cache_summary.txt"] == (
        "KV Cache Statistics\n"
        "==================================================\n"
        "\n"
        "Total blocks available: 4096\n"
        "Total allocations: 627\n"
        "Total deallocations: 2\n"
        "Peak blocks used: 1329\n"
        "Peak usage: 32.45%\n"
        "Total evictions: 2\n"
        "Avg block lifetime: 0.333s\n"
        "Avg idle before eviction: 0.333s\n"
    )
    assert files["kv_block_events.csv"].splitlines()[1:4] == [
        '0.123000,None,None,alloc,0,1-625,625,1-625,625,None,625,15.26,"a ""b"", c",'
        "None,None,None,None,None",
        "0.200000,None,None,cache,0,1-2,2,None,None,None,625,15.26,x,0,None,None,None,None",
        '0.300000,None,None,free,0,"2-1,7",3,2-1,2,None,0,0.00,None,None,None,None,None,None',
    ]
    assert files["kv_prefix_cache.csv"].splitlines()[1] == "0.000000,r,3,1,0.3333,False,3,1,0.3333"


def test_nothing_recorded_still_gives_every_file_with_its_header(tmp_path: Path) -> None:
    out = write(tmp_path / "session", [])
    files = tree(out)
    assert set(files) == {"metadata.json", *(table.file for table in TABLES.values())}
    for table in TABLES.values():
        header = ",".join(column.name for column in table.columns) + "\n"
        expected = f"{table.heading}\n{'=' * 50}\n\n" if table.heading else header
        assert files[table.file].decode() == expected


def test_metadata_is_sorted_indented_and_lists_the_files(tmp_path: Path) -> None:
    trace = tables([])
    ranks = {"dp0_pp0_tp1": {"kv_cache_usage": trace["kv_cache_usage"]}}
    out = tmp_path / "session"
    writer = CsvSession(out, TABLES, force=False)
    assert writer.write({"kv_cache_usage": trace["kv_cache_usage"]}, METADATA, ranks) == out
    assert (out / "metadata.json").read_text() == (
        "{\n"
        '  "files": [\n'
        '    "kv_cache_usage.csv",\n'
        '    "metadata.json",\n'
        '    "ranks/dp0_pp0_tp1/kv_cache_usage.csv"\n'
        "  ],\n"
        '  "session_id": "20260124_123456",\n'
        '  "start_time": "2026-01-24T12:34:56+00:00"\n'
        "}\n"
    )


def test_ranks_take_the_same_files(tmp_path: Path) -> None:
    frames = tables(EVENTS)
    out = write(tmp_path / "session", ranks={"dp0_pp0_tp1": frames, "dp2_pp1_tp0_1": frames})
    files = tree(out)
    for directory in ("ranks/dp0_pp0_tp1", "ranks/dp2_pp1_tp0_1"):
        for table in TABLES.values():
            assert files[f"{directory}/{table.file}"] == files[table.file]


def test_foreign_text_cannot_break_a_file(tmp_path: Path) -> None:
    # As pandas stores it without pyarrow, or in a column of objects.
    name = 'a\n"b",\r\ud800 ü'
    frame = tables([at(1, "preempt", req="x")])["kv_preemptions"]
    frame["request_id"] = pd.Series([name], dtype="object")
    CsvSession(tmp_path / "s", TABLES, force=False).write(
        {"kv_preemptions": frame}, {"session_id": name}
    )
    content = (tmp_path / "s" / "kv_preemptions.csv").read_bytes().decode()
    assert content.endswith('\n0.000000,"a\n""b"",\r\\ud800 ü",None,None\n')
    assert json.loads((tmp_path / "s" / "metadata.json").read_bytes())["session_id"] == name


def test_the_mode_of_files_is_the_users(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        out = write(tmp_path / "session")
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == 0o750
    assert (out / "metadata.json").stat().st_mode & 0o777 == 0o640


# --------------------------------------------------------------------------- spelling

DIGITS = {"seconds": (9, 3), "fine_seconds": (9, 6), "milliseconds": (6, 3)}


@pytest.mark.parametrize("spelling", list(DIGITS))
@given(values=st.lists(st.none() | st.integers(-(10**17), 10**17), min_size=1))
def test_times_are_rounded_as_decimals(spelling: str, values: list[int | None]) -> None:
    exponent, decimals = DIGITS[spelling]

    def exact(value: int | None) -> str:
        if value is None:
            return "None"
        unit = Decimal(1).scaleb(-decimals)
        rounded = Decimal(value).scaleb(-exponent).quantize(unit, rounding=ROUND_HALF_UP)
        return str(rounded if rounded else abs(rounded))

    spelled = SPELLINGS[spelling](pd.Series(values, dtype="Int64"))
    assert spelled == [exact(value) for value in values]


@given(st.integers(1, 10**6), st.data())
def test_usage_is_printed_as_vllms_own_would_be(total: int, data: st.DataObject) -> None:
    used = data.draw(st.integers(0, total))
    get_usage = 1.0 - ((total - used) / total)
    share = usage(np.array([used]), np.array([total]))
    assert SPELLINGS["percent"](share) == [f"{get_usage * 100:.2f}"]


def test_what_is_not_known_is_none_in_every_spelling() -> None:
    for spelling, dtype in (
        ("value", "Int64"),
        ("value", "boolean"),
        ("value", "string"),
        ("value", "category"),
        ("ids", "object"),
        ("seconds", "Int64"),
        ("fine_seconds", "Int64"),
        ("milliseconds", "Int64"),
        ("percent", "Float64"),
        ("ratio", "float64"),
    ):
        assert SPELLINGS[spelling](pd.Series([None], dtype=dtype)) == ["None"]
    assert SPELLINGS["value"](pd.Series([True, None, False], dtype="boolean")) == [
        "True",
        "None",
        "False",
    ]
    assert SPELLINGS["ids"](pd.Series([(5, 6, 7, 12), (), None])) == ["5-7,12", "", "None"]
    assert SPELLINGS["seconds"](pd.Series([-400_000, -500_000])) == ["0.000", "-0.001"]


# --------------------------------------------------------------------------- the users' own lines


def shell(line: str, directory: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", line], cwd=directory, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_lines_that_users_have_in_their_scripts(tmp_path: Path) -> None:
    out = write(tmp_path / "session")
    assert shell("sort -t',' -k6 -rn cuda_graph_usage.csv | head -5", out) == (
        "FULL,256,128,True,False,3\n"
        "PIECEWISE,1024,None,False,None,1\n"
        "runtime_mode,num_tokens,num_reqs,uniform,has_lora,replay_count\n"
    )
    mean = "awk -F',' 'NR>1 {sum+=$2; count++} END {print sum/count}' kv_cache_usage.csv"
    assert shell(mean, out) == "15.9033\n"
    peak = "sort -t',' -k2 -rn kv_cache_usage.csv | head -1"
    assert shell(peak, out) == "0.456,32.45,1329,4096\n"
    assert shell("wc -l < cuda_graph_captures.csv", out).strip() == "3"
    sizes = "cat cuda_graph_usage.csv | cut -d',' -f2 | sort | uniq -c"
    assert "1 256\n" in shell(sizes, out)
    total = "awk -F',' 'NR>1 {sum+=$6} END {print sum}' cuda_graph_usage.csv"
    assert shell(total, out) == "4\n"
    quick = "awk -F',' 'NR>1 && $2<10 {count++} END {print count}' kv_cache_evictions.csv"
    assert shell(quick, out) == "2\n"


def test_the_lines_that_users_have_in_their_notebooks(tmp_path: Path) -> None:
    out = write(tmp_path / "session")
    graphs = pd.read_csv(out / "cuda_graph_usage.csv")
    top = graphs.nlargest(10, "replay_count")
    assert top[["num_tokens", "replay_count"]].to_numpy().tolist() == [[256, 3], [1024, 1]]
    usage = pd.read_csv(out / "kv_cache_usage.csv")
    assert usage["usage_pct"].max() == 32.45
    for table in TABLES.values():
        if not table.heading:
            assert len(pd.read_csv(out / table.file)) == len(tables(EVENTS)[table.name])


def test_lines_that_fail_on_a_session_without_rows_fail_for_the_lack_of_rows(
    tmp_path: Path,
) -> None:
    """Out of our reach: pandas cannot know the type of a column without values, nor awk a mean.

    Whoever wants to be safe checks for rows first, or gives `dtype`.
    """
    out = write(tmp_path / "session", [])
    graphs = pd.read_csv(out / "cuda_graph_usage.csv")
    assert graphs.empty
    with pytest.raises(TypeError):
        graphs.nlargest(10, "replay_count")
    typed = pd.read_csv(out / "cuda_graph_usage.csv", dtype={"replay_count": int})
    assert typed.nlargest(10, "replay_count").empty
    assert shell("sort -t',' -k6 -rn cuda_graph_usage.csv | head -5", out).count("\n") == 1
