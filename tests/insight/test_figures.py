"""Every output has the same value for every figure, and a witness has it, too."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import compare_sessions
import pytest
import report_sessions
from frames import At, at, trace_of
from places import EXPECTED
from recorded import real_traces
from saved_build import Rows, coverage, graph, step, usage, write_session

from profilemate.insight.compare import METRICS as COMPARED
from profilemate.insight.compare import as_json as compare_json
from profilemate.insight.compare import compare
from profilemate.insight.figures import FIGURES, figures
from profilemate.insight.findings import as_json as findings_json
from profilemate.insight.findings import find
from profilemate.insight.headline import headline
from profilemate.insight.metrics import families
from profilemate.insight.reading import percent
from profilemate.insight.report import draw_all
from profilemate.parse.pipeline import parse_session
from profilemate.parse.pipeline import write_session as write_trace
from profilemate.parse.session.saved import SavedSession

Known = dict[str, float | None]

# --------------------------------------------------------------------------- ten sessions


def odd(folder: Path) -> SavedSession:
    """What used to be counted in two ways: empty, dummy and unknown steps, repeated look-ups."""
    steps = [step(i, padding_tokens=1, num_tokens=9, host_ms=2.0) for i in range(30)]
    steps += [step(30 + i, "NONE", tokens=600 + i, host_ms=5.0) for i in range(10)]
    steps += [step(40 + i, tokens=0, decode_tokens=0, host_ms=90.0) for i in range(7)]
    steps += [step(50 + i, dummy=True, host_ms=90.0) for i in range(5)]
    steps += [step(60 + i, mode=None, tokens=None, host_ms=3.0) for i in range(4)]  # type: ignore[arg-type]
    modes: Rows = [
        {"runtime_mode": "FULL", "steps": 30, "empty_steps": 7, "unpadded_tokens": 240},
        {"runtime_mode": "PIECEWISE", "steps": 0, "empty_steps": 0, "unpadded_tokens": 0},
        {"runtime_mode": "NONE", "steps": 10, "empty_steps": 0, "unpadded_tokens": 6045},
        {"runtime_mode": None, "steps": 4, "empty_steps": 0, "unpadded_tokens": None},
    ]
    padding: Rows = [
        {
            "runtime_mode": mode,
            "unpadded_tokens": before,
            "padded_tokens": after,
            "num_paddings": None if before is None else after - before,
            "count": count,
        }
        for mode, before, after, count in (
            ("FULL", 8, 9, 30),
            ("FULL", None, 16, 8),
            ("NONE", 600, 600, 10),
        )
    ]
    lookups: Rows = [
        {"timestamp_sec": i, "preempted": again, "tokens": 100, "hit_tokens": 90 if again else 20}
        for i in range(60)
        for again in [i % 3 == 0]
    ]
    tables: dict[str, Rows] = {
        "cuda_graph_steps": steps,
        "cuda_graph_coverage": modes,
        "cuda_graph_padding": padding,
        "kv_prefix_cache": lookups,
        "kv_cache_usage": usage((0, 100), (30, 930), (60, 10)),
        # Within a step more blocks were in use than at its end.
        "kv_cache_summary": [{"Peak blocks used": 970, "Total allocations": 5000}],
        "kv_preemptions": [
            {"timestamp_sec": 31, "request_id": str(i), "tokens_lost": lost, "blocks_freed": 2}
            for i, lost in enumerate((5, None, 7))
        ],
    }
    return write_session(folder, tables)


def parsed(folder: Path, mode: str) -> SavedSession:
    """A session of events, whose engine was not recorded."""
    events: list[At] = [at(0, "session", pid=1, role="worker", dp=0, pp=0, tp=0, faults=0)]
    events += [
        at(10 * i, "step", pid=1, step=i, mode=mode, num_tokens=8, unpadded=5, reqs=1, dur=5)
        for i in range(1, 40)
    ]
    write_trace(trace_of(events), folder)
    return SavedSession.open(folder)


def captures_only(folder: Path) -> SavedSession:
    row = {"graphs_captured": 3, "graphs_replayed": 1, "graphs_never_replayed": 2}
    rows = coverage(30, none=10, unpadded_tokens=300, **row)
    tables: dict[str, Rows] = {
        "cuda_graph_captures": [graph(8 * n, capture_time_sec="0.100") for n in (1, 2, 3)],
        "cuda_graph_coverage": rows,
        "cuda_graph_replay_latency": [graph(8, steps=30, gpu_steps=0, launches=30)],
    }
    return write_session(folder, tables)


MADE: dict[str, Callable[[Path], SavedSession]] = {
    "server": lambda folder: SavedSession.open(EXPECTED),
    "ranks": lambda folder: SavedSession.open(report_sessions.make(folder)),
    "further rank": lambda folder: SavedSession.open(report_sessions.make(folder)).ranks()[
        "dp0_pp0_tp1"
    ],
    "before": lambda folder: compare_sessions.two(folder)[0],
    "after": lambda folder: compare_sessions.two(folder)[1],
    "odd": odd,
    "nothing": lambda folder: write_session(folder, hooks={}),
    "idle": lambda folder: write_session(folder, {"kv_cache_usage": usage((0, 1), (60, 1))}),
    "full": lambda folder: parsed(folder, "FULL"),
    "eager": lambda folder: parsed(folder, "NONE"),
    "captures": captures_only,
}


@pytest.fixture(params=MADE)
def session(request: pytest.FixtureRequest, tmp_path: Path) -> SavedSession:
    return MADE[request.param](tmp_path / "s")


# --------------------------------------------------------------------------- outputs

EVIDENCE: dict[str, dict[str, str]] = {
    "kv-usage": {
        "peak_pct": "kv_peak_pct",
        "mean_pct": "kv_mean_pct",
        "peak_blocks": "kv_peak_blocks",
        "total_blocks": "kv_blocks",
        "preemptions": "preemptions",
    },
    "kv-evictions": {"evictions": "kv_evictions", "total_blocks": "kv_blocks"},
    "preemptions": {"count": "preemptions", "tokens_lost": "tokens_lost", "tokens_run": "tokens"},
    "prefix-cache": {
        "tokens_asked": "prefix_query_tokens",
        "tokens_hit": "prefix_hit_tokens",
        "hit_rate_pct": "prefix_hit_pct",
        "lookups": "prefix_lookups",
        "evictions": "kv_evictions",
    },
    "graphs-": {
        "steps": "steps",
        "steps_on_graphs_pct": "graph_steps_pct",
        "tokens_on_graphs_pct": "graph_tokens_pct",
        "gpu_time_on_graphs_pct": "graph_gpu_pct",
    },
    "eager-decode": {"eager_pct": "eager_decode_pct"},
    "padding": {
        "padding_pct": "padding_pct",
        "padding_tokens": "padding_tokens",
        "padded_tokens": "padded_tokens",
        "padding_gpu_pct": "padding_gpu_pct",
    },
    "captures-un": {"captured": "graphs_captured", "never_replayed": "graphs_unused"},
    "workload": {"hottest_pct": "hottest_graph_pct"},
}
"""How the rule of a finding begins, and the figures in its evidence."""

METRICS = {
    "session_duration_seconds": "recorded_sec",
    "graph_launches_attributed_ratio": "launches_attributed_pct",
    "kernel_time_in_graphs_ratio": "kernel_time_in_graphs_pct",
    "kv_cache_blocks": "kv_blocks",
    "kv_cache_blocks_peak": "kv_peak_blocks",
    "kv_cache_peak_usage_ratio": "kv_peak_pct",
    "kv_block_allocations": "kv_allocations",
    "kv_block_deallocations": "kv_deallocations",
    "kv_block_evictions": "kv_evictions",
    "preemptions": "preemptions",
    "preempted_blocks": "preempted_blocks",
    "preempted_tokens": "tokens_lost",
    "prefix_cache_lookups": "prefix_lookups",
    "prefix_cache_queries": "prefix_query_tokens",
    "prefix_cache_hits": "prefix_hit_tokens",
}
SUMMED = {
    "steps": "steps",
    "empty_steps": "empty_steps",
    "step_tokens": "tokens",
    "cuda_graphs_captured": "graphs_captured",
    "cuda_graphs_never_replayed": "graphs_unused",
    "cuda_graphs_replayed": "graphs_replayed",
}
"""Metrics of each mode, of which the figure is the sum."""

LINES: dict[str, tuple[str, Callable[[float], str]]] = {
    "recorded": ("recorded_sec", lambda v: f"{v:.1f} s"),
    "steps": ("steps", lambda v: f"{v:,.0f}"),
    "on graphs": ("graph_steps_pct", lambda v: f"{percent(v / 100)} of steps"),
    "padding": ("padding_pct", lambda v: percent(v / 100)),
    "KV usage": ("kv_peak_pct", lambda v: f"peak {percent(v / 100)}"),
    "evictions": ("kv_evictions", lambda v: f"{v:,.0f}"),
    "prefix hits": ("prefix_hit_pct", lambda v: percent(v / 100)),
}


def values(session: SavedSession) -> Known:
    return {name: found.value for name, found in figures(session).items()}


def test_what_is_not_known_has_a_reason(session: SavedSession) -> None:
    found = figures(session)
    assert set(found) == set(FIGURES)
    for name, figure in found.items():
        assert (figure.value is None) == bool(figure.why), name
        assert figure.value is None or math.isfinite(figure.value), name


def test_compare(session: SavedSession) -> None:
    known = values(session)
    rows = compare_json(compare(session, session))["metrics"]
    told = {name: row for name, row in rows.items() if name in FIGURES}
    for name, row in told.items():
        assert row["a"] == row["b"] == known[name] is not None, name
    shown = {name for name in COMPARED if name in known and known[name] is not None}
    assert shown == set(told)


def test_findings(session: SavedSession) -> None:
    known = values(session)
    for finding in findings_json(find(session))["findings"]:
        if finding["rank"] is not None:
            continue
        for begin, evidence in EVIDENCE.items():
            if not finding["rule"].startswith(begin):
                continue
            for key, name in evidence.items():
                if key not in finding["evidence"]:
                    continue
                value, figure = finding["evidence"][key], known[name]
                expected = None if figure is None else round(figure, 2)
                assert value == expected, (finding["rule"], key)


def samples(session: SavedSession, name: str) -> Iterator[tuple[Mapping[str, str], float]]:
    """The samples of a metric that are of the session, and not of one of its further ranks."""
    further = {rank.path.name for rank in session.ranks().values()}
    for family in families(session):
        if family.spec.name == f"profilemate_{name}":
            for sample in family.samples:
                if sample.labels.get("rank") not in further:
                    yield sample.labels, sample.value


def test_metrics(session: SavedSession) -> None:
    known = values(session)
    for metric, name in METRICS.items():
        found = [v for labels, v in samples(session, metric) if labels.get("preempted") != "True"]
        scale = 100 if FIGURES[name].unit == "%" else 1
        expected = known[name]
        assert found == ([] if expected is None else [pytest.approx(expected / scale)]), metric
    for metric, name in SUMMED.items():
        found = [v for _, v in samples(session, metric)]
        if found and known[name] is not None:
            assert sum(found) == known[name], metric


def test_terminal_and_head_of_the_page(session: SavedSession) -> None:
    known = values(session)
    lines = {line.label: line for line in headline(session)}
    for label, (name, spell) in LINES.items():
        value = known[name]
        if label in lines and value is not None:
            assert lines[label].figure == spell(value), label
        elif label in lines:
            assert "not known" in lines[label].figure, label


def test_charts(session: SavedSession) -> None:
    known = values(session)
    charts = {d.chart.name: d.drawing for part in draw_all(session).values() for d in part}

    def said(chart: str, name: str, text: str) -> None:
        drawing, value = charts[chart], known[name]
        if drawing is not None and value is not None:
            assert text.format(value) in drawing.says, (chart, drawing.says)

    said("kv_cache_usage", "kv_peak_pct", "peaks at {:,.2f} %;")
    said("kv_cache_usage", "kv_evictions", " {:,.0f} evictions")
    said("kv_cache_usage", "preemptions", " {:,.0f} preemptions")
    said("kv_prefix_cache", "prefix_hit_tokens", "{:,.0f} of ")
    said("kv_prefix_cache", "prefix_hit_pct", "({:,.2f} %)")
    said("cuda_graph_padding", "padding_pct", "({:,.2f} %)")
    said("cuda_graph_padding", "padding_tokens", "{:,.0f} of the ")
    if (ranks := charts["ranks"]) is not None:
        for column, name in (("steps", "steps"), ("peak_pct", "kv_peak_pct")):
            assert ranks.grid.data[column][0] == known[name]
        assert ranks.grid.data["graph_pct"][0] == pytest.approx(known["graph_steps_pct"])


# --------------------------------------------------------------------------- the witness


def witness(folder: Path) -> Known:
    """The figures that used to have several meanings, counted row by row by the csv module."""

    def rows(name: str) -> list[dict[str, str]]:
        with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def share(part: float, whole: float) -> float | None:
        return 100 * part / whole if whole else None

    steps = [
        r for r in rows("cuda_graph_steps") if r["dummy"] != "True" and r["unpadded_tokens"] != "0"
    ]
    with_mode = [r for r in steps if r["runtime_mode"] != "None"]
    on_graphs = [r for r in with_mode if r["runtime_mode"] in ("FULL", "PIECEWISE")]
    asked = found = 0
    for r in rows("kv_prefix_cache"):
        if r["preempted"] == "False":
            asked, found = asked + int(r["tokens"]), found + int(r["hit_tokens"])
    padding = padded = 0
    for r in rows("cuda_graph_padding"):
        if r["runtime_mode"] in ("FULL", "PIECEWISE") and "None" not in r.values():
            padding += int(r["num_paddings"]) * int(r["count"])
            padded += int(r["padded_tokens"]) * int(r["count"])
    decode = [
        r["runtime_mode"] == "NONE"
        for r in with_mode
        if r["prefill_tokens"] == "0" and int(r["decode_tokens"]) > 0
    ]
    return {
        "steps": len(steps) if steps else None,
        "graph_steps_pct": share(len(on_graphs), len(with_mode)),
        "prefix_hit_pct": share(found, asked),
        "padding_pct": share(padding, padded),
        "eager_decode_pct": share(sum(decode), len(decode)),
    }


def check(session: SavedSession) -> None:
    known = values(session)
    for name, value in witness(session.path).items():
        if value is not None:
            assert known[name] == pytest.approx(value), name


@pytest.mark.parametrize("name", ["server", "ranks", "further rank", "odd", "full", "eager"])
def test_figures_are_those_of_the_files(name: str, tmp_path: Path) -> None:
    check(MADE[name](tmp_path / "s"))


def test_what_had_two_meanings_has_this_one(tmp_path: Path) -> None:
    found = figures(odd(tmp_path / "s"))
    known: dict[str, Any] = {
        "steps": 44,  # neither empty nor dummy ones, and those without a number of tokens too
        "step_host_p50": 2.0,  # 30 of 44
        "graph_steps_pct": 75,  # of the 40 whose mode is known
        "graph_tokens_pct": 100 * 240 / (240 + 6045),
        "kv_peak_pct": 97,  # within a step
        "prefix_hit_pct": 20,  # without the look-ups of resumed requests
        "padding_pct": 100 / 9,  # of the steps of which both numbers are known
        "preemptions": 3,
    }
    for name, value in known.items():
        assert found[name].value == pytest.approx(value), name
    for name in ("tokens", "tokens_per_sec", "tokens_lost"):
        assert found[name].value is None, "a part is not the whole"
        assert found[name].why


def test_a_nought_is_counted_only_where_a_hook_was_there(tmp_path: Path) -> None:
    tables: dict[str, Rows] = {"kv_cache_usage": usage((0, 1), (60, 1))}
    watched = figures(write_session(tmp_path / "a", tables))
    hooks = {"installed": {"BlockPool.get_new_blocks": "x"}, "skipped": {}, "waiting": {}}
    blind = figures(write_session(tmp_path / "b", tables, hooks=hooks))
    for name in ("kv_evictions", "preemptions", "tokens_lost", "prefix_lookups"):
        assert watched[name].value == 0
        assert blind[name].value is None
        assert "hook" in blind[name].why


@pytest.mark.parametrize(
    "trace",
    [
        "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz",
        "vllm_mi300x_mixed_piecewise.json.gz",
    ],
)
def test_a_recording_of_plain_vllm(trace: str, tmp_path: Path) -> None:
    session = SavedSession.open(parse_session([real_traces() / trace], tmp_path / "s").path)
    for of in (test_compare, test_findings, test_metrics, test_charts, check):
        of(session)
