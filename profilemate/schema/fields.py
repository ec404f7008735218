"""Fields and kinds, and how a single value is spelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, unquote

from profilemate.errors import SchemaError

FieldType = Literal["int", "bool", "str", "ids"]
Value = int | bool | str | tuple[int, ...]

MAX_IDS = 1 << 20
"""Block ids in one list at most: one operation of one request, whose context would be 16 million
tokens. A longer list is a mangled message: its ranges say in a few bytes what takes gigabytes."""

MAX_MESSAGE_IDS = 1 << 22
"""Block ids in all lists of a message at most: those of one scheduler step."""

# Everything but letters, digits and these is percent-encoded in strings.
_SAFE = "_.-~/:+,@*()[]<>!?&;"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a kind: its name, its type, its unit, and what it means.

    `given`: `Kind.spell` is never asked to leave it out.
    """

    name: str
    type: FieldType
    doc: str
    unit: str = ""
    given: bool = False


COMMON = (
    Field("ago", "int", "how long before the message's emission the event began", "ns"),
    Field("dur", "int", "how long it took on the host", "ns"),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One event kind. `encode` takes ago, dur and then the fields in order.

    `spell` takes the same and gives the same, in two thirds of the time; but ago, dur and what is
    `given` must not be None, and no field may be left out.
    """

    name: str
    doc: str
    fields: tuple[Field, ...]
    since: int = 1
    types: Mapping[str, FieldType] = field(init=False, repr=False, compare=False)
    encode: Callable[..., str] = field(init=False, repr=False, compare=False)
    spell: Callable[..., str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        every = COMMON + self.fields
        object.__setattr__(self, "types", {f.name: f.type for f in every})
        object.__setattr__(self, "encode", _compile_encoder(self.name, every))
        given = tuple(replace(f, given=True) for f in COMMON) + self.fields
        object.__setattr__(self, "spell", _compile_speller(self.name, given))


def encode_ids(ids: Sequence[int]) -> str:
    """Write block ids in order, runs as ranges: `5-7,12`; a falling run is `9-6`."""
    if len(ids) == 1:
        return str(ids[0])
    parts: list[str] = []
    i, n = 0, len(ids)
    while i < n:
        start = ids[i]
        j = i + 1
        step = ids[j] - start if j < n else 0
        if step in (1, -1):
            while j < n and ids[j] - ids[j - 1] == step:
                j += 1
            parts.append(f"{start}-{ids[j - 1]}")
        else:
            parts.append(str(start))
        i = j
    return ",".join(parts)


def decode_ids(text: str) -> tuple[int, ...]:
    """Read `encode_ids`'s form back.

    Raises:
        SchemaError: The text is no list of ranges, or one of more than `MAX_IDS`.
    """
    ids: list[int] = []
    try:
        for part in text.split(",") if text else ():
            first, dash, last = part.partition("-")
            a = b = int(first)
            if dash:
                b = int(last)
            if len(ids) + abs(b - a) >= MAX_IDS:
                raise ValueError(part)
            ids.extend(range(a, b + 1) if a <= b else range(a, b - 1, -1))
    except ValueError as e:
        raise SchemaError(f"not a list of block ids: {text[:80]!r}") from e
    return tuple(ids)


@lru_cache(maxsize=8192)
def encode_str(text: str) -> str:
    """Percent-encode foreign text (request ids, versions); lone surrogates survive too."""
    if text == "None":
        return "%4Eone"
    return quote(text, safe=_SAFE, errors="surrogatepass")


def decode_str(text: str) -> str:
    """Read `encode_str`'s form back.

    Raises:
        SchemaError: The percent-encoded bytes are no UTF-8.
    """
    try:
        return unquote(text, errors="surrogatepass") if "%" in text else text
    except UnicodeDecodeError as e:
        raise SchemaError(f"not text: {text[:80]!r}") from e


def decode_value(kind: FieldType, text: str) -> Value:
    """Read a value of a known type.

    Raises:
        SchemaError: The text is not of that type.
    """
    if kind == "int":
        try:
            return int(text)
        except ValueError as e:
            raise SchemaError(f"not an integer: {text[:80]!r}") from e
    if kind == "bool":
        if text not in ("True", "False"):
            raise SchemaError(f"not True or False: {text[:80]!r}")
        return text == "True"
    return decode_ids(text) if kind == "ids" else decode_str(text)


_SPELLED = {
    "str": "encode_str({0})",
    # Most operations are about one block.
    "ids": "{0}[0] if len({0}) == 1 else encode_ids({0})",
}


def _compile_encoder(name: str, fields: Iterable[Field]) -> Callable[..., str]:
    # Encoding runs inside the engine, once per KV operation: a compiled f-string takes a third of
    # the time of a loop over the fields.
    return _compiled(", ".join(f"{f.name}=None" for f in fields), name, map(_optional, fields))


def _compile_speller(name: str, fields: Iterable[Field]) -> Callable[..., str]:
    # A field that may be missing takes a string of its own first: twice the time.
    parts = (_present(f) if f.given else _optional(f) for f in fields)
    return _compiled(", ".join(f.name for f in fields), name, parts)


def _present(f: Field) -> str:
    return f" {f.name}={{{_SPELLED.get(f.type, '{0}').format(f.name)}}}"


def _optional(f: Field) -> str:
    return f"""{{'' if {f.name} is None else f"{_present(f)}"}}"""


def _compiled(parameters: str, name: str, parts: Iterable[str]) -> Callable[..., str]:
    source = f"lambda {parameters}: f'''{name}{''.join(parts)}'''"
    function: Callable[..., str] = eval(
        source, {"encode_str": encode_str, "encode_ids": encode_ids}
    )
    return function
