"""Launches of CUDA graphs: `torch.cuda.CUDAGraph.replay`, where every one of them ends.

Inside an open step a launch of the model is only counted, the step's range stands for it. Any other
launch has a range of its own that says whose graph it was: a drafter's while tokens are sampled,
an encoder's, one that no hook knew at its capture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilemate.annotate.faults import shield
from profilemate.annotate.graphs import MAIN, TAG, UNTAGGED
from profilemate.annotate.hook import Hook, Method, Original, Target
from profilemate.annotate.wrapping import compile_wrapper
from profilemate.schema import KINDS, PREFIX

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter
    from profilemate.annotate.sink import Sink

_REPLAY_EVENT = KINDS["graph.replay"].encode

# A piecewise step of 60 layers comes here 61 times.
_REPLAY = f"""
if not pm_emitter.active:
    return CALL
if pm_step.counting and getattr(SELF, {MAIN!r}, False):
    pm_step.launched += 1
    return CALL
pm_sinks = pm_push(SELF)
if not pm_sinks:
    return CALL
try:
    return CALL
finally:
    pm_pop(pm_sinks)
"""


def wrap_replay(original: Original, emitter: Emitter) -> Method:
    """CUDAGraph.replay: count it, or open a range for it."""
    state, step = emitter.state, emitter.step

    def push(graph: Any) -> tuple[Sink, ...]:
        step.launched += getattr(graph, MAIN, False)
        number = None if step.dummy else state.worker_step or None
        tag = getattr(graph, TAG, UNTAGGED)
        return emitter.push(PREFIX + _REPLAY_EVENT(None, None, *tag, number, step.dummy or None))

    faults, where = emitter.faults, original.hook
    return compile_wrapper(
        original,
        _REPLAY,
        pm_emitter=emitter,
        pm_step=step,
        pm_push=shield(where, faults, push),
        pm_pop=shield(where, faults, emitter.pop),
    )


HOOKS = (
    Hook(
        "CUDAGraph.replay",
        "graphs",
        (Target("torch.cuda.graphs:CUDAGraph.replay", wrap_replay),),
        ("graph.replay", "step.end"),
        "every launch, of every runner and at places that are not known yet",
    ),
)
