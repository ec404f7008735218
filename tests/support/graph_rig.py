"""A worker of the stand-in layout with hooks in it: what tests of graphs drive."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from listsink import ListSink

from profilemate import schema
from profilemate.annotate import current
from profilemate.schema import Event

FULL_4 = {"mode": "FULL", "num_tokens": 4, "num_reqs": 4, "uniform": True, "has_lora": False}
FULL_2 = {"mode": "FULL", "num_tokens": 2, "num_reqs": 2, "uniform": True, "has_lora": False}
PIECEWISE_4 = {"mode": "PIECEWISE", "num_tokens": 4, "uniform": False, "has_lora": False}


class Rig:
    """A worker of the stand-in layout with hooks in it, and what they said."""

    def __init__(self, sink: ListSink) -> None:
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner
        from vllm.v1.worker.gpu_worker import Worker

        self.sink = sink
        self.runner = GPUModelRunner()
        self.worker = Worker(self.runner)

    def step(self, *tokens: int, new: int = 0, outputs: int = 1) -> None:
        """One scheduled step of requests with so many tokens; the first `new` are new ones."""
        self.worker.execute_model(output_of(*tokens, new=new, outputs=outputs))

    def ranges(self) -> list[Event]:
        """The ranges since the last call, all closed."""
        assert self.sink.depth == 0
        texts, self.sink.ranges = self.sink.ranges, []
        return [message.events[0] for text in texts if (message := schema.decode(text))]

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The buffered events since the last call."""
        assert current.emitter is not None
        current.emitter.flush()
        assert current.emitter.faults.count == 0
        found = self.sink.events(*kinds)
        self.sink.messages.clear()
        return [e.values for e in found]


def output_of(*tokens: int, new: int = 0, outputs: int = 1) -> Any:
    ids = [f"r{i}" for i in range(len(tokens))]
    cached = ids[new:]
    return SimpleNamespace(
        num_scheduled_tokens=dict(zip(ids, tokens, strict=True)),
        total_num_scheduled_tokens=sum(tokens),
        scheduled_new_reqs=[SimpleNamespace(req_id=r) for r in ids[:new]],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=cached, num_output_tokens=[outputs] * len(cached)
        ),
    )


def without_ago(event: Event) -> dict[str, Any]:
    values = dict(event.values)
    assert values.pop("ago") >= 0  # type: ignore[operator]
    return values
