"""HTA on torch traces: its sums against a brute-force count of the JSON, and what it leaves out."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import EXPECTED
from recorded import real_traces

from profilemate.errors import InputError, OutputError, ToolError
from profilemate.hta.run import SUMMARY, TABLES, Breakdowns, hta, sections
from profilemate.hta.trace_copies import copies
from profilemate.parse.pipeline import parse_session

RTX3090 = "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz"
REAL = [
    RTX3090,
    "vllm_mi300x_mixed_piecewise.json.gz",
    "vllm_b200_eager_prefill.json.gz",
    "training_v100_two_graphs_old_kineto.json.gz",
]

Json = dict[str, Any]


def event(cat: str, name: str, ts: float, dur: float, **args: object) -> Json:
    where = {"pid": 0, "tid": 7} if "stream" in args and cat != "cpu_op" else {"pid": 9, "tid": 9}
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "args": args, **where}


def trace_of(path: Path, *, rank: int | None, steps: str = "execute_context_0(0)_") -> Path:
    """Three steps, each with a kernel, a copy and a graph launch of three kernels, by hand."""
    events = [event("cpu_op", "triton_op", 40.0, 5.0, stream=7, **{"External id": 1})]
    for i in range(3):
        at, number = 100.0 * i, 10 * (i + 1)
        events += [
            event("user_annotation", f"{steps}{i}", at, 50.0),
            event("cuda_runtime", "cudaLaunchKernel", at + 1, 2.0, correlation=number),
            event("kernel", "gemm", at + 10.125, 3.25, stream=7, correlation=number),
            event("cuda_runtime", "cudaMemcpyAsync", at + 4, 2.0, correlation=number + 1),
            event("gpu_memcpy", "Memcpy DtoH", at + 14, 1.5, stream=7, correlation=number + 1),
            event("cuda_runtime", "cudaGraphLaunch", at + 7, 2.0, correlation=number + 2),
            *(
                event("kernel", f"k{k}", at + 20 + 5 * k, 2.0, stream=7, correlation=number + 2)
                for k in range(3)
            ),
        ]
    # Launched after the last step's range, as a sampler is.
    events += [
        event("cuda_runtime", "cudaLaunchKernel", 270.0, 2.0, correlation=99),
        event("kernel", "sampler", 280.0, 7.0, stream=7, correlation=99),
        event("kernel", "of_an_earlier_launch", 3.0, 11.0, stream=7, correlation=5),
    ]
    content: Json = {"schemaVersion": 1, "deviceProperties": [], "traceEvents": events}
    if rank is not None:
        content["distributedInfo"] = {"rank": rank}
    path.write_text(json.dumps(content))
    return path


def brute_force(path: Path) -> tuple[float, float]:
    """Time of kernels and of memory operations whose launch is in the trace, us."""
    data = path.read_bytes()
    content = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    events = [e for e in content["traceEvents"] if e.get("ph") == "X"]
    of_gpu = ("kernel", "gpu_memcpy", "gpu_memset")
    launched = {e.get("args", {}).get("correlation") for e in events if e["cat"] not in of_gpu}
    kernel = memory = 0.0
    for e in events:
        if e["cat"] in of_gpu and e["args"]["correlation"] in launched:
            if e["cat"] == "kernel":
                kernel += e["dur"]
            else:
                memory += e["dur"]
    return kernel, memory


def rows(out: Path, name: str) -> list[dict[str, str]]:
    with (out / f"hta_{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check(trace: Path, out: Path, result: Breakdowns) -> None:
    kernel, memory = brute_force(trace)
    kernels = rows(out, "kernels")
    of = {
        kind: sum(float(r["sum (us)"]) for r in kernels if (r["kernel_type"] == "MEMORY") == kind)
        for kind in (True, False)
    }
    assert of == pytest.approx({True: memory, False: kernel}, rel=1e-9)
    said = json.loads((out / SUMMARY).read_text())
    assert said == json.loads(json.dumps(result.summary))
    assert said["hta"]["kernel_time_us"] == pytest.approx(of[False])
    assert {p.name for p in out.iterdir()} == {*(f"hta_{n}.csv" for n in TABLES), SUMMARY}


@pytest.mark.parametrize("name", REAL)
def test_kernel_time_of_real_recordings(name: str, tmp_path: Path) -> None:
    trace = real_traces() / name
    result = hta(trace, tmp_path / "out")
    check(trace, tmp_path / "out", result)
    if name in REAL[:3]:  # every kernel of these was launched in the recording
        time = result.summary["profilemate"]["kernel_time_us"]
        assert result.summary["hta"]["kernel_time_us"] == pytest.approx(time, rel=1e-9)
    unknown = [text for text in result.summary["left_out"] if "HIP's names" in text]
    if name == REAL[1]:
        assert "0 rows for 52 kernels" in unknown[0]  # 413 kernels, 361 of them in graphs
    assert bool(unknown) == (name in REAL[1:3])
    launches = result.summary["profilemate"]["launches"]
    assert any(f"{launches} of them" in text for text in result.summary["left_out"]) == bool(
        launches
    )


def test_a_session_gets_them_beside_its_own_tables(tmp_path: Path) -> None:
    parse_session([real_traces() / RTX3090], tmp_path / "s")
    before = {p.name for p in (tmp_path / "s").iterdir()}
    command = [sys.executable, "-m", "profilemate", "hta", str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "18 from execute_" in done.stdout
    assert "65 of them" in done.stdout
    after = {p.name for p in (tmp_path / "s").iterdir()}
    assert after - before == {*(f"hta_{n}.csv" for n in TABLES), SUMMARY}
    said = json.loads((tmp_path / "s" / SUMMARY).read_text())
    ours = json.loads((tmp_path / "s" / "metadata.json").read_text())["coverage"]
    assert said["profilemate"] == ours
    # A session that is parsed anew keeps them, as any file that is not its own.
    parse_session([real_traces() / RTX3090], tmp_path / "s", force=True)
    assert after == {p.name for p in (tmp_path / "s").iterdir()}


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ("execute_context_0(0)_generation_1(1)_", "execute_"),
        ("pm1.step step=", "pm1.step"),
        ("ProfilerStep#", "ProfilerStep#"),
        ("something else ", "nothing"),
    ],
)
def test_steps_get_the_name_that_hta_knows(steps: str, told: str, tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.json", rank=0, steps=steps)
    (copy,) = copies([trace], tmp_path)
    assert (copy.steps, copy.steps_from) == (0 if told == "nothing" else 3, told)
    result = hta(trace, tmp_path / "out")
    if told == "ProfilerStep#":
        # Its own steps are left as they are: what was launched after them is left out, and said.
        assert result.summary["hta"]["kernel_time_us"] == 3 * 3.25 + 9 * 2
        assert "the trace holds 45.750 us" in result.summary["left_out"][1]
    elif told != "nothing":
        check(trace, tmp_path / "out", result)
    assert result.summary["hta"]["memory_time_us"] == 3 * 1.5
    assert result.summary["traces"][0]["cpu_ops_without_their_stream"] == 1


def test_launches_keep_their_correlation_and_graphs_are_not_among_them(tmp_path: Path) -> None:
    result = hta(trace_of(tmp_path / "t.json", rank=0), tmp_path / "out")
    launches = rows(tmp_path / "out", "launches")
    assert {int(r["correlation"]) for r in launches} == {10, 11, 20, 21, 30, 31, 99}
    first = next(r for r in launches if r["correlation"] == "10")
    assert float(first["launch_delay"]) == pytest.approx(10.125 - 3)
    assert "3 of them" in result.summary["left_out"][0]
    assert "9 of 14 kernels" in result.summary["left_out"][0]


@pytest.mark.parametrize(("ranks", "known"), [((3, 5), {3, 5}), ((None, None), {0, 1})])
def test_several_ranks(ranks: tuple[int | None, ...], known: set[int], tmp_path: Path) -> None:
    traces = [trace_of(tmp_path / f"t{i}.json", rank=rank) for i, rank in enumerate(ranks)]
    parse_session(traces, tmp_path / "s")
    result = hta(tmp_path / "s", tmp_path / "out")
    assert {t["rank"] for t in result.summary["traces"]} == known
    assert {int(r["rank"]) for r in rows(tmp_path / "out", "temporal")} == known
    assert {int(r["rank"]) for r in rows(tmp_path / "out", "idle")} == known
    assert {int(r["rank"]) for r in rows(tmp_path / "out", "launches")} == known
    kernel = sum(brute_force(trace)[0] for trace in traces)
    assert result.summary["hta"]["kernel_time_us"] == pytest.approx(kernel)
    assert len(sections(result)) == 3


def test_a_front_end_has_nothing_to_break_down(tmp_path: Path) -> None:
    worker = trace_of(tmp_path / "worker.json", rank=0)
    content = json.loads(worker.read_text())
    content["traceEvents"] = [e for e in content["traceEvents"] if e["cat"] == "user_annotation"]
    front = tmp_path / "front.json"
    front.write_text(json.dumps(content))
    parse_session([front, worker], tmp_path / "s")
    result = hta(tmp_path / "s", tmp_path / "out")
    assert [t["path"] for t in result.summary["traces"]] == [str(worker)]
    assert result.summary["traces_without_gpu_records"] == [str(front)]
    with pytest.raises(InputError, match="nothing for HTA to break down"):
        hta(front, tmp_path / "other")


@pytest.mark.parametrize("path", [EXPECTED.parent / "recording.sqlite", EXPECTED.parent])
def test_what_is_no_torch_trace_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torch profiler traces only|no session directory"):
        hta(path, tmp_path / "out")


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    trace, out = trace_of(tmp_path / "t.json", rank=0), tmp_path / "out"
    out.mkdir()
    (out / "hta_idle.csv").write_text("mine")
    with pytest.raises(OutputError, match="--force"):
        hta(trace, out)
    assert [p.name for p in out.iterdir()] == ["hta_idle.csv"]
    hta(trace, out, force=True)
    assert len(rows(out, "temporal")) == 1


def test_a_session_without_torch_traces_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no torch profiler trace"):
        hta(EXPECTED, tmp_path)


def test_a_trace_that_moved_is_named(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.json", rank=0)
    parse_session([trace], tmp_path / "s")
    trace.unlink()
    with pytest.raises(InputError, match=r"t\.json"):
        hta(tmp_path / "s", tmp_path / "out")


def test_a_cut_trace_is_refused(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.json", rank=0)
    trace.write_text(trace.read_text()[:-300])
    with pytest.raises(InputError, match="HTA cannot read this trace"):
        hta(trace, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_hta_the_command_to_type_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hta.trace_analysis", None)
    with pytest.raises(ToolError, match="pip install 'traceinsight"):
        hta(trace_of(tmp_path / "t.json", rank=0), tmp_path / "out")


def test_only_the_command_imports_hta() -> None:
    code = (
        "import sys, profilemate.cli, profilemate.hta.run as h;"
        "print([m for m in sys.modules if m.partition('.')[0] in ('hta', 'plotly', 'IPython')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
