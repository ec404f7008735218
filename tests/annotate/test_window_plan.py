"""Which steps vLLM's profiler will record, and whether a torch profiler runs."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from profilemate.annotate.plan import Plan
from profilemate.annotate.window import torch_is_profiling


def recorded(config: SimpleNamespace, steps: int) -> list[int]:
    """The steps that vLLM 0.32's profiler records, by its own words, its schedule written out."""
    delay = config.delay_iterations
    waits = config.wait_iterations + config.warmup_iterations
    torch_step, count, found = -1, 0, []
    left = max(waits - 1, 0)
    if delay == 0:
        torch_step = 0
    for step in range(1, steps + 1):
        if torch_step < 0 and step == delay:
            torch_step = 0
        if torch_step >= 0:
            torch_step += 1
            if waits and left > 0:
                left -= 1
            else:
                count += 1
        if config.max_iterations and count > config.max_iterations:
            break
        in_schedule = waits <= torch_step < waits + config.active_iterations
        if torch_step >= 0 and (not waits or in_schedule):
            found.append(step)
    return found


@pytest.mark.parametrize("delay", range(4))
@pytest.mark.parametrize("limit", range(4))
@pytest.mark.parametrize("waits", [(0, 0), (1, 0), (0, 1), (2, 1)])
@pytest.mark.parametrize("active", [1, 3])
def test_a_plan_counts_like_vllm(
    delay: int, limit: int, waits: tuple[int, int], active: int
) -> None:
    config = SimpleNamespace(
        profiler="torch",
        delay_iterations=delay,
        max_iterations=limit,
        wait_iterations=waits[0],
        warmup_iterations=waits[1],
        active_iterations=active,
    )
    plan = Plan.after(100, config)
    planned = [n for n in range(1, 31) if plan.first <= 100 + n <= plan.last]
    assert planned == recorded(config, 30)


def test_vllm_0_12_says_it_in_variables() -> None:
    env = {"VLLM_PROFILER_DELAY_ITERS": "3", "VLLM_PROFILER_MAX_ITERS": "2"}
    assert Plan.after(10, None, env=env) == Plan(13, 14)
    assert Plan.after(10, None, env={}).first == 11
    assert Plan.after(10, None, delay=1, limit=1, env=env) == Plan(11, 11)


def test_without_torch_no_profiler_runs() -> None:
    assert "torch" not in sys.modules
    assert not torch_is_profiling()


def test_emit_nvtx_is_no_profiler(layout: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.autograd.profiler

    torch.autograd.profiler._is_profiler_enabled = True
    assert torch_is_profiling()
    kind = SimpleNamespace(name="NVTX")
    autograd = SimpleNamespace(_profiler_type=lambda: kind)
    monkeypatch.setattr(torch, "_C", SimpleNamespace(_autograd=autograd), raising=False)
    assert not torch_is_profiling()
