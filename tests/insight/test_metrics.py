"""Exported metrics, read back by the client library's own parser, against the CSV files."""

from __future__ import annotations

import builtins
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from csv_metrics import Labels, Samples, counted, lead, session_id
from frames import At, at, trace_of
from places import EXPECTED
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_older
from recorded import real_traces

from profilemate.annotate.hooks import HOOKS
from profilemate.errors import InputError, OutputError, ToolError
from profilemate.insight.figures import kv
from profilemate.insight.figures.graphs import CAPTURE_HOOKS
from profilemate.insight.metrics import SPECS, families
from profilemate.insight.metrics.export import FORMATS, export
from profilemate.parse.pipeline import parse_session, write_session
from profilemate.parse.session.saved import SavedSession

PARSERS: dict[str, Callable[[str], Any]] = {
    "openmetrics": text_string_to_metric_families,
    "prometheus": parse_older,
}


def read_back(text: str, parser: str = "openmetrics") -> Samples:
    found: Samples = {}
    for family in PARSERS[parser](text):
        assert family.documentation, family.name
        for sample in family.samples:
            assert sample.timestamp is None, "a scraper rejects old samples"
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def of_session(folder: Path, name: str = "openmetrics") -> Samples:
    return read_back(export(folder, name), name)


def names(samples: Samples) -> set[str]:
    return {name for name, _ in samples}


def of_rank(samples: Samples, rank: str) -> Samples:
    return {k: v for k, v in samples.items() if ("rank", rank) in k[1]}


def check(folder: Path, samples: Samples, session: str, rank: str) -> Samples:
    """Every figure that the witness counts is there; what it found is returned."""
    wanted = counted(folder, session, rank)
    for key, value in wanted.items():
        assert samples[key] == pytest.approx(value, rel=1e-9), key
    # And of these families nothing that it did not count, but for a counted 0.
    mine = of_rank(samples, rank)
    extra = {k for k in mine if k[0] in names(wanted) and k not in wanted and mine[k]}
    assert not {k for k in extra if not k[0].endswith("_bucket")}
    return wanted


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_servers_figures_are_those_of_the_files(name: str) -> None:
    samples = of_session(EXPECTED, name)
    wanted = check(EXPECTED, samples, session_id(EXPECTED), "dp0_pp0_tp0")
    assert len(wanted) > 20
    assert wanted["profilemate_preemptions_total", _labels(EXPECTED)] == 12


def _labels(folder: Path, **further: str) -> Labels:
    common = {"session": session_id(folder), "rank": "dp0_pp0_tp0"}
    return frozenset({**common, **further}.items())


def test_with_vllms_buckets_the_histogram_is_vllms() -> None:
    samples = of_session(EXPECTED)
    of_vllm = {
        labels: v
        for (name, labels), v in samples.items()
        if name == "profilemate_kv_block_lifetime_seconds_count"
        and ("counted_by_vllm", "True") in labels
    }
    assert sum(of_vllm.values()) == 285  # as its kv_block_lifetimes.csv says in counted_by_vllm
    bounds = {dict(k[1])["le"] for k in samples if k[0].endswith("lifetime_seconds_bucket")}
    assert {"0.001", "0.02", "1.0", "1800.0", "+Inf"} <= bounds


def test_what_was_not_recorded_is_no_metric() -> None:
    found = names(of_session(EXPECTED))
    assert not [n for n in found if "gpu" in n or "kernel" in n or "launch" in n or "replays" in n]
    assert "profilemate_cuda_graphs_captured" in found  # hooks were in: 0 is counted


@pytest.mark.parametrize(
    "trace",
    [
        "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz",
        "vllm_mi300x_mixed_piecewise.json.gz",
    ],
)
def test_a_recording_of_plain_vllm_on_a_real_gpu(trace: str, tmp_path: Path) -> None:
    out = tmp_path / "s"
    parse_session([real_traces() / trace], out)
    samples = of_session(out)
    wanted = check(out, samples, session_id(out), lead(out))
    assert "profilemate_cuda_graph_replay_gpu_span_seconds_sum" in names(wanted)
    said = json.loads((out / "metadata.json").read_text())["coverage"]
    key = ("profilemate_kernel_time_in_graphs_ratio", frozenset({("session", session_id(out))}))
    ratio = said["kernel_time_in_graphs_us"] / said["kernel_time_us"]
    assert samples[key] == pytest.approx(ratio)
    # Nobody counted captures, padding or blocks there.
    absent = [n for n in names(samples) if "captured" in n or "padding" in n or "kv_" in n]
    assert not absent


def rank(pid: int, tp: int, mode: str) -> list[At]:
    name = "Scheduler._preempt_request"
    role = "engine+worker" if tp == 0 else "worker"
    return [
        at(0, "session", pid=pid, role=role, dp=0, pp=0, tp=tp, faults=0),
        *([at(1, "hook", pid=pid, name=name, status="installed", target="t")] if tp == 0 else []),
        *(
            at(10 * i, "step", pid=pid, step=i, mode=mode, num_tokens=8, unpadded=5, reqs=1, dur=5)
            for i in range(1, 4 + tp)
        ),
    ]


def test_ranks_are_labels(tmp_path: Path) -> None:
    out = tmp_path / "s"
    write_session(trace_of([*rank(1, 0, "FULL"), *rank(2, 1, "FULL")]), out)
    samples = of_session(out)
    session = session_id(out)
    check(out, samples, session, "dp0_pp0_tp0")
    check(out / "ranks" / "dp0_pp0_tp1", samples, session, "dp0_pp0_tp1")
    steps = {
        dict(labels)["rank"]: v
        for (name, labels), v in samples.items()
        if name == "profilemate_steps_total" and ("runtime_mode", "FULL") in labels
    }
    assert steps == {"dp0_pp0_tp0": 3, "dp0_pp0_tp1": 4}
    # The scheduler is in one process: only there no preemption is a counted 0.
    preempted = {dict(k[1])["rank"]: v for k, v in samples.items() if "preemptions" in k[0]}
    assert preempted == {"dp0_pp0_tp0": 0}


def test_replays_are_those_of_the_standard_file(tmp_path: Path) -> None:
    out = tmp_path / "s"
    write_session(trace_of(rank(1, 0, "PIECEWISE")), out)
    with (out / "cuda_graph_usage.csv").open() as file:
        counts = [line.rsplit(",", 1)[1] for line in file.read().splitlines()[1:]]
    replays = [v for k, v in of_session(out).items() if k[0].endswith("graph_replays_total")]
    assert replays == [float(c) for c in counts] == [3]


@pytest.mark.parametrize("name", list(FORMATS))
def test_labels_are_escaped(name: str, tmp_path: Path) -> None:
    odd = 'a "quoted" \\back\\ \n line, and {braces}'
    shutil.copytree(EXPECTED, tmp_path / "s")
    file = tmp_path / "s" / "metadata.json"
    said = json.loads(file.read_text()) | {"session_id": odd}
    file.write_text(json.dumps(said))
    samples = of_session(tmp_path / "s", name)
    assert {dict(labels)["session"] for _, labels in samples} == {odd}


def test_units_and_names_follow_the_conventions() -> None:
    assert len({spec.name for spec in SPECS}) == len(SPECS)
    for family in families(SavedSession.open(EXPECTED)):
        spec = family.spec
        assert spec in SPECS
        assert spec.name.startswith("profilemate_")
        assert not spec.name.endswith(("_total", "_info", "_ms", "_percent"))
        assert spec.help.endswith("."), spec.name
        if spec.unit == "ratio":
            assert all(0 <= s.value <= 1 for s in family.samples), spec.name


def test_the_hooks_that_make_a_zero_a_count_exist() -> None:
    known = {hook.name for hook in HOOKS}
    asked = {kv.ALLOCATE, kv.FREE, kv.EVICT, kv.PREEMPT, kv.LOOK_UP, *CAPTURE_HOOKS}
    assert asked <= known


def test_an_existing_file_is_kept_without_force(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "s.om"
    text = export(EXPECTED, "openmetrics", out)
    assert out.read_text() == text
    with pytest.raises(OutputError, match="--force"):
        export(EXPECTED, "prometheus", out)
    assert out.read_text() == text
    export(EXPECTED, "prometheus", out, force=True)
    assert out.read_text() != text
    assert [p.name for p in out.parent.iterdir()] == ["s.om"]
    for bad in (tmp_path, out / "below"):
        with pytest.raises(OutputError, match="cannot write"):
            export(EXPECTED, "prometheus", bad, force=True)


def test_an_unknown_format_names_the_known() -> None:
    with pytest.raises(InputError, match="openmetrics, prometheus"):
        export(EXPECTED, "xml")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ToolError, match="pip install 'prometheus_client"):
        export(EXPECTED, "openmetrics")
