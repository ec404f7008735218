"""The wire format: whatever goes in comes out, and what is not ours is kept or refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profilemate import schema
from profilemate.errors import SchemaError
from profilemate.schema import KINDS, Event, Value, decode, encode, encode_batch, encode_event

VALUES: dict[str, st.SearchStrategy[Value]] = {
    "int": st.integers(),
    "bool": st.booleans(),
    "str": st.text(st.characters(exclude_categories=())),
    "ids": st.lists(st.integers(0, 200), max_size=60).map(tuple),
}
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True)


@st.composite
def events(draw: st.DrawFn) -> Event:
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    names = draw(st.sets(st.sampled_from(sorted(kind.types))))
    values = {name: draw(VALUES[kind.types[name]]) for name in sorted(names)}
    extra = draw(st.dictionaries(KEYS, st.text(), max_size=3))
    reserved = {"t", "seq", *kind.types}
    return Event(kind.name, values, {k: v for k, v in extra.items() if k not in reserved})


@given(events(), st.none() | st.integers(0))
def test_any_event_survives_the_round_trip(event: Event, t: int | None) -> None:
    text = encode(event, t=t)
    assert re.fullmatch(r"[ -~]+", text)
    assert not set(text) & set("\"'\\")
    message = decode(text)
    assert message is not None
    assert (message.t, message.events) == (t, [event])


@given(st.lists(events(), min_size=1, max_size=8), st.integers(0), st.integers(0))
def test_a_batch_keeps_its_events_in_order(batch: list[Event], t: int, seq: int) -> None:
    message = decode(encode_batch([encode_event(e) for e in batch], t=t, seq=seq))
    assert message is not None
    assert (message.t, message.seq, message.events) == (t, seq, batch)


@st.composite
def calls_of_spell(draw: st.DrawFn) -> tuple[str, list[Value | None]]:
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    always = {"ago", "dur", *(f.name for f in kind.fields if f.given)}
    values = [
        draw(VALUES[t].filter(bool) if t == "ids" else VALUES[t])
        if name in always or draw(st.booleans())
        else None
        for name, t in kind.types.items()
    ]
    return kind.name, values


@given(calls_of_spell())
def test_the_fast_spelling_is_the_same(call: tuple[str, list[Value | None]]) -> None:
    name, values = call
    assert KINDS[name].spell(*values) == KINDS[name].encode(*values)


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=400),
    st.integers(70, 200),
    st.randoms(use_true_random=False),
)
def test_long_messages_are_cut_and_joined_in_any_order(
    body: str, limit: int, random: object
) -> None:
    text = schema.PREFIX + body
    parts = schema.split(text, number=3, limit=limit)
    assert all(len(p) <= limit for p in parts)
    random.shuffle(parts)  # type: ignore[attr-defined]
    joiner = schema.Joiner()
    whole = [w for p in parts if (w := joiner.feed("sender", p)) is not None]
    assert whole == [text]
    assert joiner.unfinished == 0


def test_parts_of_two_senders_do_not_mix_and_a_missing_part_is_counted() -> None:
    joiner = schema.Joiner()
    long = schema.PREFIX + "x" * 500
    first, *rest = schema.split(long, number=1, limit=100)
    assert joiner.feed("a", first) is None
    assert joiner.feed("b", rest[-1]) is None
    assert joiner.unfinished == 2


def test_a_message_of_sixty_thousand_scattered_blocks_fits_the_limit_in_parts() -> None:
    event = Event("kv.free", {"pool": 0, "ids": tuple(range(0, 120_000, 2))})
    parts = schema.split(encode(event), number=1)
    assert len(parts) > 1
    assert max(map(len, parts)) <= schema.MAX_MESSAGE < 32 * 1024
    joiner = schema.Joiner()
    (whole,) = (w for p in parts if (w := joiner.feed(0, p)) is not None)
    message = decode(whole)
    assert message is not None
    assert message.events == [event]


def test_the_wire_looks_like_the_design() -> None:
    values: dict[str, Value] = {
        "mode": "FULL",
        "num_tokens": 256,
        "num_reqs": 128,
        "uniform": True,
        "has_lora": False,
    }
    assert encode(Event("graph.replay", values)) == (
        "pm1.graph.replay mode=FULL num_tokens=256 num_reqs=128 uniform=True has_lora=False"
    )
    assert schema.encode_ids((5, 6, 7, 12, 9, 8, 7)) == "5-7,12,9-7"


def test_unknown_kinds_and_keys_are_kept() -> None:
    message = decode("pm1.kv.teleport t=5 ids=1-3 note=a%20b | kv.free pool=0 ids=4 colour=red")
    assert message is not None
    unknown, known = message.events
    assert (unknown.kind, unknown.extra) == ("kv.teleport", {"ids": "1-3", "note": "a b"})
    assert known.values == {"pool": 0, "ids": (4,)}
    assert known.extra == {"colour": "red"}


@pytest.mark.parametrize("text", ["", "execute_new_2_cached_0", "pm2.step step=1", "PM1.step"])
def test_foreign_text_is_not_ours(text: str) -> None:
    assert decode(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "pm1.step step=seven",
        "pm1.step dummy=yes",
        "pm1.kv.free ids=1-x",
        "pm1.kv.free ids=0-99999999999",
        "pm1.step step",
        "pm1.batch t=now | kv.free",
    ],
)
def test_a_broken_message_is_refused(text: str) -> None:
    with pytest.raises(SchemaError):
        decode(text)


def test_every_kind_documents_itself() -> None:
    for kind in KINDS.values():
        assert kind.doc, kind.name
        for field in kind.fields:
            assert field.doc, (kind.name, field.name)
            assert field.name not in ("t", "seq")
