"""The vocabulary: every event kind, and the one text form it has on the wire.

A *message* is one line of printable ASCII without quotes or backslashes (torch writes a scope's
name into its trace unescaped), which a person can read in a timeline:

    pm1.step t=81234 step=7 num_tokens=35 num_reqs=5
    pm1.batch t=81234 seq=12 | kv.alloc ago=900 dur=3 pool=0 ids=5-7,12 used=9 | kv.free ago=…

* The prefix carries the major version. A reader of version 1 reads every `pm1.` message: keys
  have no order, unknown keys are kept, unknown kinds are counted.
* A field that is None is left out. Strings are percent-encoded, block ids are ranges.
* `t` is the CLOCK_MONOTONIC time of emission in ns; `ago` says how many ns before `t` an event
  began, `dur` how long it took. The events of one scheduler step travel as one batch, because
  each NVTX event costs the recorder some microseconds; `seq` counts the batches of a process, so
  that a lost one shows.
* A message of more than 32 KiB is cut into numbered `pm1.part` messages: nsys 2022.4 returned
  another string in place of a longer one.

A new kind is one row in `kinds.KINDS`. Nothing outside this package knows how an event is spelled.
"""

from profilemate.schema.fields import (
    COMMON,
    MAX_IDS,
    MAX_MESSAGE_IDS,
    Field,
    Kind,
    Value,
    decode_ids,
    decode_str,
    encode_ids,
    encode_str,
)
from profilemate.schema.kinds import GRAPH_KEY, KINDS, KV_OPS
from profilemate.schema.messages import (
    DOMAIN,
    MAX_MESSAGE,
    PREFIX,
    VERSION,
    Event,
    Joiner,
    Message,
    decode,
    decode_event,
    encode,
    encode_batch,
    encode_event,
    split,
)

__all__ = [
    "COMMON",
    "DOMAIN",
    "GRAPH_KEY",
    "KINDS",
    "KV_OPS",
    "MAX_IDS",
    "MAX_MESSAGE",
    "MAX_MESSAGE_IDS",
    "PREFIX",
    "VERSION",
    "Event",
    "Field",
    "Joiner",
    "Kind",
    "Message",
    "Value",
    "decode",
    "decode_event",
    "decode_ids",
    "decode_str",
    "encode",
    "encode_batch",
    "encode_event",
    "encode_ids",
    "encode_str",
    "split",
]
