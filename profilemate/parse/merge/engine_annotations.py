"""What engines write into their own annotations: one grammar a row.

They look different in every release, so each grammar takes what it knows and leaves the rest; what
begins like a step and fits none is a step of which nothing else is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from profilemate.parse.recording.activity import STEP_PREFIXES
from profilemate.schema.modes import GRAPH_MODES


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What an annotation says of a step; None is what it does not say.

    Attributes:
        requests: Requests in the batch.
        tokens: Tokens to run, before padding.
        prefill_tokens: Tokens of requests in their prompt phase.
        decode_tokens: The other tokens.
    """

    requests: int | None = None
    tokens: int | None = None
    prefill_tokens: int | None = None
    decode_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Grammar:
    """One way to name a step: a pattern for the begin of the text, and what it says."""

    name: str
    pattern: re.Pattern[str]
    facts: Callable[[Mapping[str, str]], StepFacts]


def _phases(parts: Mapping[str, str]) -> StepFacts:
    context, generation = int(parts["context_tokens"]), int(parts["generation_tokens"])
    requests = int(parts["context"]) + int(parts["generation"])
    return StepFacts(requests, context + generation, context, generation)


def _new_cached(parts: Mapping[str, str]) -> StepFacts:
    # A cached request may be in a later chunk of its prompt: only of no requests tokens are known.
    requests = int(parts["new"]) + int(parts["cached"])
    return StepFacts(0, 0, 0, 0) if not requests else StepFacts(requests)


def _sglang(parts: Mapping[str, str]) -> StepFacts:
    requests, tokens = int(parts["bs"]), parts["toks"]
    if parts["mode"] == "DECODE":  # one token a request
        count = int(tokens) if tokens else requests
        return StepFacts(requests, count, 0, count)
    if not tokens:
        return StepFacts(requests)
    return StepFacts(requests, int(tokens), int(tokens) if parts["mode"] == "EXTEND" else None)


# A number of requests and, in brackets, their tokens: `1(888)`, `1(888_788544)` (the second is a
# sum of squares), `9(sq8155sk8430sqsq7475785sqsk7671310)` (sq is the sum of query lengths).
_PHASE = r"{0}_(?P<{0}>\d+)\((?:sq)?(?P<{0}_tokens>\d+)[^)]*\)"

GRAMMARS = (
    Grammar(
        "vLLM since 0.14.1; with detailed_trace_annotation (0.28) tokens come first",
        re.compile(rf"execute_(?:\d+_)?{_PHASE.format('context')}_{_PHASE.format('generation')}"),
        _phases,
    ),
    Grammar(
        "vLLM 0.12", re.compile(r"execute_new_(?P<new>\d+)_cached_(?P<cached>\d+)"), _new_cached
    ),
    Grammar(
        "SGLang",
        re.compile(r"step\[(?P<mode>\w+) bs=(?P<bs>\d+)(?: toks=(?P<toks>\d+))?"),
        _sglang,
    ),
)

_CAPTURE = re.compile(rf"capture_(?P<num_tokens>\d+)_(?P<mode>{'|'.join(GRAPH_MODES)})\b")
FORWARD_SCOPES = ("gpu_model_runner: forward",)
"""vLLM's scope of one model execution, for recordings without an annotation of the step."""

_PART = re.compile(r"step\[(?:TARGET_)?VERIFY|step\[DRAFT")
_VERIFICATION = re.compile(r"step\[(?:TARGET_)?VERIFY")
_NO_STEP = ("execute_diffusion_",)  # of a model that draws pictures: no tokens, no KV cache


def is_step(text: str) -> bool:
    """Whether an annotation is that of a whole step."""
    return (
        text.startswith(STEP_PREFIXES) and not text.startswith(_NO_STEP) and not _PART.match(text)
    )


def stands_for_step(text: str) -> bool:
    """Whether an annotation stands for its step where no annotation is that of a whole one.

    Drafting and verifying are parts of a step, and each step verifies once.
    """
    return text in FORWARD_SCOPES or _VERIFICATION.match(text) is not None


def step_facts(text: str) -> StepFacts | None:
    """What an annotation says of the step that it is; None where it is not that of a whole one."""
    if not is_step(text):
        return None
    for grammar in GRAMMARS:
        found = grammar.pattern.match(text)
        if found is not None:
            return grammar.facts(found.groupdict(default=""))
    return StepFacts()


def capture_facts(text: str) -> tuple[str, int] | None:
    """Mode and tokens of the graph that an annotation says is captured; None where it is none."""
    found = _CAPTURE.match(text)
    return None if found is None else (found["mode"], int(found["num_tokens"]))
