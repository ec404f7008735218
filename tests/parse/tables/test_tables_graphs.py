"""The CUDA graph tables on constructed event streams."""

from __future__ import annotations

from typing import Any

import pytest
from frames import At, at, trace_of
from graph_events import EAGER, FULL, PIECEWISE, replay, step

from profilemate.parse.tables import TABLES

Row = tuple[object, ...]


def pieces(ts: int, number: int | None, key: dict[str, Any], **values: Any) -> list[At]:
    return [replay(ts + i, number, key, piece=i, pieces=3, **values) for i in range(3)]


def capture(ts: int, key: dict[str, Any], **values: Any) -> At:
    return at(ts, "graph.capture", dur=1000, **key, **values)


def build(name: str, events: list[At]) -> list[Row]:
    frame = TABLES[name].build(trace_of(events))
    assert list(frame.columns) == [column.name for column in TABLES[name].columns]
    frame = frame.astype(object).where(frame.notna(), None)
    return [tuple(row) for row in frame.itertuples(index=False)]


F, P = ("FULL", 256, 128, True, False), ("PIECEWISE", 512, None, False, False)


def test_captures_are_unique_graphs_in_order_of_first_capture() -> None:
    events = [
        capture(5, FULL, phase="profile"),
        *(capture(10 + i, PIECEWISE, piece=i, phase="real") for i in range(3)),
        capture(20, FULL, phase="real"),
        capture(30, PIECEWISE),
        capture(40, PIECEWISE | {"num_active_loras": 2}),
    ]
    # The third differs in a field that the standard columns do not show.
    assert build("cuda_graph_captures", events) == [(*P, 10), (*F, 20), (*P, 40)]


def test_captures_that_are_told_again_count_once() -> None:
    again = [
        capture(-900, PIECEWISE, phase="real", again=3, pieces=3),
        capture(-700, FULL, phase="real", again=1),
    ]
    # Only told again, as in a recording of a window; in two windows; and one captured in between.
    late = PIECEWISE | {"num_tokens": 4}
    rows = [(*P, -900), (*F, -700), ("PIECEWISE", 4, *P[2:], 50)]
    more = [capture(50, late, phase="real", piece=i, pieces=3) for i in range(3)]
    told = [*again, *more, *again, capture(50, late, phase="real", again=3, pieces=3)]
    assert build("cuda_graph_captures", again) == rows[:2]
    assert build("cuda_graph_captures", told) == rows
    # Of a graph that was captured more than once, all captures are in the last telling.
    mine = [
        at(5, "graph.capture", dur=dur, **FULL, phase="real", again=times)
        for times, dur in ((1, 1000), (2, 1700), (1, 1000))
    ]
    for events, spent in (
        (again, (1000, 1000)),
        (told, (1000, 4000)),
        (mine, (1700, 0)),
        (mine[1:], (1700, 0)),
        (mine[:1], (1000, 0)),
    ):
        assert spent_on_captures(events) == spent


@pytest.mark.parametrize(
    "other", [{"pid": 2}, {"model": "drafter"}, {"owner": "Other"}], ids=lambda o: next(iter(o))
)
def test_others_have_captures_of_their_own_on_equal_graphs(other: dict[str, Any]) -> None:
    told: dict[str, Any] = {"phase": "real", "again": 1}
    mine: dict[str, Any] = {"model": "backbone", "owner": "CUDAGraphWrapper", "pid": 1}
    events = [
        at(i, "graph.capture", dur=1000, **FULL, **told, **owner)
        for i, owner in enumerate((mine, mine | other))
    ]
    assert spent_on_captures(events) == (2000, 0)
    assert build("cuda_graph_captures", events) == [(*F, 0)]


def spent_on_captures(events: list[At]) -> tuple[object, object]:
    """Time that capturing took, of FULL and of PIECEWISE graphs, none of which was replayed."""
    found = {row[0]: row[-1] for row in build("cuda_graph_coverage", events)}
    return found["FULL"], found["PIECEWISE"]


def test_usage_counts_steps_not_pieces() -> None:
    events = [
        step(0, 1, PIECEWISE, launches=3),
        *pieces(10, 1, PIECEWISE),
        step(100, 2, FULL, launches=1),
        replay(110, 2, FULL),
        step(200, 3, EAGER),
        step(300, 4, FULL, launches=1),
        replay(310, 4, FULL),
    ]
    assert build("cuda_graph_usage", events) == [(*F, 2), (*P, 1)]


def test_steps_alone_suffice() -> None:
    events = [
        step(0, 1, PIECEWISE, launches=3),
        step(100, 2, PIECEWISE),
        step(200, 3, EAGER, launches=0),
        step(300, 4, FULL, launches=0),  # captured in this step, not replayed
        at(400, "step", dur=9, step=5),  # hooks that do not know the mode
    ]
    assert build("cuda_graph_usage", events) == [(*P, 2)]
    assert [row[2] for row in build("cuda_graph_timeline", events)] == [90, 90]


@pytest.mark.parametrize("numbered", [True, False])
def test_launches_alone_suffice(numbered: bool) -> None:
    number = iter(range(9)) if numbered else None

    def following() -> int | None:
        return None if number is None else next(number)

    events = [
        *pieces(10, following(), PIECEWISE),
        *pieces(20, following(), PIECEWISE),
        replay(30, following(), FULL),
    ]
    assert build("cuda_graph_usage", events) == [(*P, 2), (*F, 1)]
    assert [(row[0], row[2]) for row in build("cuda_graph_timeline", events)] == [
        (10, 6),
        (20, 6),
        (30, 2),
    ]


def test_a_step_that_the_recording_cuts_into_is_counted_by_its_first_piece() -> None:
    events = pieces(10, None, PIECEWISE)[1:] + pieces(20, None, PIECEWISE)
    assert build("cuda_graph_usage", events) == [(*P, 1)]


def test_dummy_steps_are_left_out() -> None:
    events = [
        step(0, 1, FULL, launches=1, dummy=True),
        replay(10, 1, FULL),  # in a step that says it is one
        replay(20, 2, FULL, dummy=True),
        replay(30, None, FULL, dummy=True),
        step(40, 3, FULL, launches=1),
        replay(50, 3, FULL),
    ]
    assert build("cuda_graph_usage", events) == [(*F, 1)]
    assert [row[0] for row in build("cuda_graph_timeline", events)] == [50]


@pytest.mark.parametrize("every_launch", [True, False])
def test_a_drafter_has_graphs_of_its_own(every_launch: bool) -> None:
    draft = FULL | {"num_tokens": 128}
    events = [step(0, 1, FULL, launches=2), replay(20, 1, draft, model="drafter")]
    # By default the hooks leave out the launches that the step itself stands for.
    events += [replay(10, 1, FULL, model="backbone")] if every_launch else []
    assert build("cuda_graph_usage", events) == [
        ("FULL", 128, 128, True, False, 1),
        (*F, 1),
    ]
    assert len(build("cuda_graph_timeline", events)) == 2


def test_the_most_replayed_graph_comes_first_and_ties_have_an_order() -> None:
    keys: list[dict[str, Any]] = [
        PIECEWISE,
        PIECEWISE | {"num_tokens": 8},
        FULL,
        FULL | {"num_reqs": 64},
        {"mode": "FULL", "num_tokens": 256},
        FULL | {"num_tokens": 16},
    ]
    events = [step(i, i, key) for i, key in enumerate(keys)] + [step(99, 99, PIECEWISE)]
    assert [row[:3] + row[5:] for row in build("cuda_graph_usage", events)] == [
        ("PIECEWISE", 512, None, 2),
        ("FULL", 16, 128, 1),
        ("FULL", 256, 64, 1),
        ("FULL", 256, 128, 1),
        ("FULL", 256, None, 1),
        ("PIECEWISE", 8, None, 1),
    ]


def test_graphs_that_differ_in_what_old_versions_do_not_say_are_the_same() -> None:
    old = {name: value for name, value in FULL.items() if name != "num_active_loras"}
    assert build("cuda_graph_usage", [step(0, 1, FULL), step(1, 2, old)]) == [(*F, 2)]


def test_timeline_prints_the_descriptor_as_vllm_does() -> None:
    more = FULL | {"num_active_loras": 3, "descriptor": "depth:2,kind:x"}
    events = [
        replay(7, 1, FULL),
        step(20, 2, PIECEWISE),
        replay(30, 3, more),
        at(40, "graph.replay", **FULL, step=4),
        at(50, "graph.replay", dur=0, **FULL, step=5),
    ]
    text = "BatchDescriptor(num_tokens=256, num_reqs=128, uniform=True, has_lora=False"
    assert build("cuda_graph_timeline", events) == [
        (7, f"FULL:{text})", 2),
        (
            20,
            "PIECEWISE:BatchDescriptor(num_tokens=512, num_reqs=None, uniform=False, "
            "has_lora=False)",
            90,
        ),
        (30, f"FULL:{text}, num_active_loras=3, depth=2, kind=x)", 2),
        (40, f"FULL:{text})", None),
        (50, f"FULL:{text})", 0),
    ]


def test_launches_without_a_number_add_nothing_where_there_are_steps() -> None:
    events = [step(0, 1, FULL, launches=1), replay(10, None, FULL), replay(20, None, FULL, pid=2)]
    # Of process 2 there are no steps.
    assert build("cuda_graph_usage", events) == [(*F, 2)]


def test_processes_count_their_own_steps() -> None:
    events = [replay(10, 1, FULL, pid=1), replay(11, 1, FULL, pid=2)]
    assert build("cuda_graph_usage", events) == [(*F, 2)]
    late = [replay(11, 1, FULL, pid=1), replay(10, 1, FULL, pid=2)]
    assert [row[0] for row in build("cuda_graph_timeline", late)] == [10, 11]


def test_launches_are_as_many_as_the_one_who_saw_the_most_of_them_says() -> None:
    events = [
        step(0, 1, FULL, launches=1),
        step(100, 2, PIECEWISE, launches=3),
        # One that the step stands for, and was told all the same.
        replay(110, 2, PIECEWISE),
        # More than the captures let expect.
        *[replay(10 + i, 1, FULL) for i in range(3)],
    ]
    found = {row[0]: row[8] for row in build("cuda_graph_replay_latency", events)}
    assert found == {"FULL": 3, "PIECEWISE": 3}
