"""The engines of this process: a program may make several `LLM`, at once or one after the other.

A scheduler and a worker that were given one `VllmConfig` are parts of one engine. Nothing here
keeps any of vLLM's objects alive: a configuration leads to the model's layers, and so to GPU
memory.
"""

from __future__ import annotations

import weakref
from typing import Any, Literal

from profilemate.annotate.engine_config import Values, config_of

Part = Literal["scheduler", "worker"]

FURTHER_QUEUES = ("skipped_waiting", "kv_holding_waiting")
"""Where vLLM keeps requests that it cannot schedule yet, a load of their KV blocks for one: the
first since about 0.18, the second in 0.32."""


class Engine:
    """What we know of an engine.

    Attributes:
        number: In the order in which the engines of this process were met, from 0.
        parts: Its scheduler and its worker, weakly held, as far as they are in this process.
        label: The number as events have it: None for the first, the only one of most processes.
        queues: Names of the scheduler's queues of waiting requests beside `waiting`.
        said: The fields of its `config` event, None before any is known.
    """

    __slots__ = ("label", "number", "parts", "queues", "said")

    def __init__(self, number: int) -> None:
        self.number = number
        self.label = number or None
        self.queues: tuple[str, ...] = ()
        self.parts: dict[Part, weakref.ref[Any]] = {}
        self.said: Values | None = None

    def part(self, part: Part) -> Any:
        """The scheduler or the worker; None where there is none, or none any more."""
        held = self.parts.get(part)
        return None if held is None else held()

    def config(self) -> Any:
        """Its VllmConfig, None where no part of it is left."""
        owners = (self.part("scheduler"), self.part("worker"))
        return next((o.vllm_config for o in owners if hasattr(o, "vllm_config")), None)

    def values(self) -> Values | None:
        """The fields of its `config` event, as they are now; the last ones when it is gone.

        They change while an engine starts: some are only chosen when the model is loaded.
        """
        config, scheduler = self.config(), self.part("scheduler")
        if config is not None:
            kv_cache = getattr(scheduler, "kv_cache_config", None)
            self.said = (self.label, *config_of(config, kv_cache))
        return self.said


class Engines:
    """The engines, found by their schedulers and workers."""

    def __init__(self) -> None:
        self.every: list[Engine] = []
        self._by_owner: dict[int, Engine] = {}  # id() of a scheduler or worker

    def known(self, owner: Any, part: Part) -> Engine | None:
        """The engine that this is part of, None if it was not met yet; asked in every step."""
        engine = self._by_owner.get(id(owner))
        # The address may have been another's, which is dead.
        return engine if engine is not None and engine.parts[part]() is owner else None

    def find(self, owner: Any, part: Part) -> Engine:
        """The engine that a scheduler or a worker is part of."""
        return self.known(owner, part) or self._meet(owner, part)

    def _meet(self, owner: Any, part: Part) -> Engine:
        config = getattr(owner, "vllm_config", None)
        found = None
        for engine in self.every:
            # A part without a configuration, as in a stand-in, is of the engine that lacks it.
            same = part not in engine.parts if config is None else engine.config() is config
            if same and engine.part(part) is None:
                found = engine
        if found is None:
            found = Engine(len(self.every))
            self.every.append(found)
        found.parts[part] = weakref.ref(owner)
        if part == "scheduler":
            found.queues = tuple(name for name in FURTHER_QUEUES if hasattr(owner, name))
        self._by_owner[id(owner)] = found
        return found
