"""Sinks: where messages go. One file and one row in `SINKS` each.

A row opens its sink in the process that calls it, or says why it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from profilemate.annotate.faults import say
from profilemate.annotate.settings import Settings, recorder
from profilemate.annotate.sink import Sink
from profilemate.annotate.sinks import nvtx, sidecar, torch_profiler

Open = Callable[[Settings, Mapping[str, str]], "tuple[Sink | None, str]"]

SINKS: tuple[Open, ...] = (nvtx.open_sink, torch_profiler.open_sink, sidecar.open_sink)


def open_sinks(settings: Settings, env: Mapping[str, str]) -> tuple[list[Sink], str]:
    """Open every sink that can record here; with none, the second value says why."""
    opened = [open_(settings, env) for open_ in SINKS]
    sinks = [sink for sink, _ in opened if sink is not None]
    if sinks and recorder(env) is not None and opened[0][0] is None:
        say(f"nothing reaches Nsight Systems: {opened[0][1]}")
    return sinks, "; ".join(why for sink, why in opened if sink is None)
