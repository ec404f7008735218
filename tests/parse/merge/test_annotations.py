"""What engines write into their own annotations, in every spelling that was seen."""

from __future__ import annotations

import pytest

from profilemate.parse.merge.engine_annotations import StepFacts, capture_facts, step_facts

SQ = (
    "execute_8192_context_9(sq8155sk8430sqsq7475785sqsk7671310)"
    "_generation_37(sq37sk34489sqsq37sqsk34489)"
)
DECODE = "execute_32_context_0(sq0sk0sqsq0sqsk0)_generation_32(sq32sk55086sqsq32sqsk55086)"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (SQ, StepFacts(46, 8192, 8155, 37)),
        (DECODE, StepFacts(32, 32, 0, 32)),
        ("execute_context_1(888_788544)_generation_0(0)", StepFacts(1, 888, 888, 0)),
        ("execute_context_0(0)_generation_16(16)", StepFacts(16, 16, 0, 16)),
        ("execute_context_0(0)_generation_0(0)", StepFacts(0, 0, 0, 0)),
        ("execute_new_2_cached_0", StepFacts(2)),
        ("execute_new_0_cached_4", StepFacts(4)),
        ("execute_new_0_cached_0", StepFacts(0, 0, 0, 0)),
        ("step[DECODE bs=32]", StepFacts(32, 32, 0, 32)),
        ("step[EXTEND bs=15 toks=15360]", StepFacts(15, 15360, 15360)),
        ("step[MIXED bs=3 toks=40]", StepFacts(3, 40)),
        ("step[IDLE]", StepFacts()),
        ("execute_of_the_future_7", StepFacts()),
        ("execute_context_x", StepFacts()),
        ("gpu_model_runner: forward", None),
        ("ProfilerStep#1009", None),
        ("capture_32_FULL", None),
        ("step[VERIFY bs=8 toks=32]", None),
        ("step[TARGET_VERIFY bs=8]", None),
        ("step[DRAFT bs=8]", None),
        ("step[DRAFT_EXTEND bs=8]", None),
        ("execute_diffusion_3", None),
    ],
)
def test_steps(text: str, facts: StepFacts | None) -> None:
    assert step_facts(text) == facts


def test_captures() -> None:
    assert capture_facts("capture_32_FULL") == ("FULL", 32)
    assert capture_facts("capture_8192_PIECEWISE") == ("PIECEWISE", 8192)
    assert capture_facts("capture_x") is None
