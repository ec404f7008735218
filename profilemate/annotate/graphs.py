"""The CUDA graphs of this process: whose they are, and how many of them a step launches.

A graph object learns at its capture whose it is and keeps that as an attribute (`TAG`), so that
nothing has to be looked up when it is launched and nothing here holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilemate.schema import GRAPH_KEY, KINDS
from profilemate.schema.modes import EAGER, PIECEWISE

if TYPE_CHECKING:
    from profilemate.annotate.outlet import Outlet

Key = tuple[Any, ...]
"""The values of `GRAPH_KEY`: which graph of a model it is."""

NO_KEY: Key = (None,) * len(GRAPH_KEY)

TAG = "pm_tag"
"""Attribute of a graph: the values of its `graph.replay` up to the step, all but the last two."""

MAIN = "pm_main"
"""Attribute of a graph that a step launches as part of the target model's forward pass."""

UNTAGGED = (*NO_KEY, None, None, None, None)
"""The tag of a graph that no hook knew at its capture."""

MAX_GRAPHS = 2048
"""Graphs that are said again when a recording begins; vLLM captures some hundred."""

_CAPTURE = KINDS["graph.capture"].encode


class Graphs:
    """What is known of the graphs that were captured.

    Attributes:
        pending: Captured graphs that no owner has claimed yet, with begin and end of their
            capture (ns, monotonic). One list for ever: wrappers hold it.
        phase: `profile` while vLLM measures the memory of graphs and throws them away, else
            `real`. Set by the code `_PHASE` in `hooks/cuda_graph_captures.py`.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self.pending: list[tuple[Any, int, int]] = []
        self.phase = "real"
        # Phase and key -> name of the owner's class -> the launches of a step, each the id() of
        # its holder and its piece (None: not numbered), in the order of their capture. vLLM may
        # drop its graphs and capture them again.
        self._launches: dict[tuple[str, Key], dict[str, list[tuple[int, int | None]]]] = {}
        # Key, owner and model -> begin of the first capture (ns), time of all (ns), their number,
        # pieces (None: not said).
        self._summaries: dict[Key, tuple[int, int, int, int | None]] = {}

    def claim(
        self,
        graph: Any,
        key: Key,
        holder: Any,
        *,
        model: str | None = None,
        piece: int | None = None,
        pieces: int | None = None,
        main: bool = False,
    ) -> bool:
        """Tag a pending graph and emit its capture; False if it is not pending.

        Args:
            graph: The graph.
            key: Which graph of its model.
            holder: The object that holds it.
            model: Tag of the model.
            piece: Which piece of the model's forward pass, from 0; None to number the pieces in the
                order of their capture.
            pieces: How many there are.
            main: A step of the scheduler launches it.
        """
        found = next((i for i, (g, *_) in enumerate(self.pending) if g is graph), None)
        if found is None:
            return False
        _, start, end = self.pending.pop(found)
        owner = type(holder).__name__
        if main:
            setattr(graph, MAIN, True)
            launches = self._launches.setdefault((self.phase, key), {}).setdefault(owner, [])
            if (id(holder), piece) not in launches:
                launches.append((id(holder), piece))
            if piece is None and key[0] == PIECEWISE:
                piece = launches.index((id(holder), piece))
        tag = (*key, owner, model, piece, pieces)
        setattr(graph, TAG, tag)
        self._emit_capture(start, end, tag)
        return True

    def _emit_capture(self, start: int, end: int, tag: Key) -> None:
        if self._outlet.active:
            self._outlet.add(_CAPTURE, start, end, (*tag, self.phase))
        *graph, _, pieces = tag
        key = tuple(graph)
        if self.phase == "real" and (key in self._summaries or len(self._summaries) < MAX_GRAPHS):
            first, spent, count, _ = self._summaries.get(key, (start, 0, 0, None))
            self._summaries[key] = (first, spent + end - start, count + 1, pieces)

    def summaries(self, now: int) -> list[str]:
        """The graphs captured so far, spelled: one event for each, whatever its pieces.

        `now` (ns, monotonic) is the time of the message that they go out with.
        """
        return [
            _CAPTURE(now - first, spent, *key, None, pieces, "real", count)
            for key, (first, spent, count, pieces) in self._summaries.items()
        ]

    def emit_unclaimed(self) -> None:
        """Emit the captures that no owner has claimed: a place in vLLM that no hook knows."""
        pending = self.pending[:]
        self.pending.clear()
        for _, start, end in pending:
            self._emit_capture(start, end, UNTAGGED)

    def launches(self, key: Key) -> int | None:
        """How many graphs a step with this key launches, by what was captured; None if unknown.

        Two classes may hold graphs of one key (a micro-batched and an ordinary one): a step runs
        those of one of them.
        """
        if key[0] == EAGER:
            return 0
        if not self._launches or key[0] is None:
            return None
        return max(map(len, self._launches.get(("real", key), {}).values()), default=0)
