"""Every event kind: one row each."""

from __future__ import annotations

from profilemate.schema.config import CONFIG
from profilemate.schema.fields import Field, Kind


def _given(name: str, doc: str, unit: str = "") -> Field:
    return Field(name, "int", doc, unit, given=True)


_INSTANCE = "vLLM's name of the server, the same in all processes of an engine"
_REQ = Field("req", "str", "vLLM's request id", "")
_ENGINE = Field("engine", "int", "number of the engine in its process, None for the first")
_POOL = _given("pool", "number of the BlockPool in its process, in order of creation")
_USED = _given("used", "blocks in use after the operation, without the null block", "blocks")


def _kv(name: str, doc: str, *fields: Field) -> Kind:
    return Kind(name, doc, (_POOL, _USED, *fields))


def _ids(doc: str, name: str = "ids") -> Field:
    return Field(name, "ids", doc, given=name in ("ids", "src", "dst"))


# The graph key, in the order of vLLM's BatchDescriptor, leads every graph event.
GRAPH_KEY = (
    Field("mode", "str", "CUDAGraphMode the step ran in: FULL, PIECEWISE or NONE"),
    Field("num_tokens", "int", "padded tokens", "tokens"),
    Field("num_reqs", "int", "requests, None where the graph takes any number", "requests"),
    Field("uniform", "bool", "all requests have the same query length"),
    Field("has_lora", "bool", "captured with LoRA active"),
    Field("num_active_loras", "int", "LoRA adapters of the graph, None for 0"),
    Field("descriptor", "str", "further fields of the descriptor that are not at default, k:v,k:v"),
)

_OWNER = (
    Field("owner", "str", "class that holds the graph, None at a place that no hook knows"),
    Field("model", "str", "vLLM's tag of the model (backbone, eagle_head), or its class"),
    Field("piece", "int", "index of the piece of a piecewise graph, from 0"),
    Field("pieces", "int", "number of pieces, None where vLLM does not say"),
)

_ROWS = (
    Kind(
        "session",
        "who is speaking: emitted first by each process and repeated, for late recordings",
        (
            Field("role", "str", "engine, worker, or engine+worker in one process"),
            Field("pid", "int", "process id"),
            Field("host", "str", "host name"),
            Field("dp", "int", "data-parallel rank, of all engines of a server: vLLM's index"),
            Field("pp", "int", "pipeline-parallel rank"),
            Field("tp", "int", "tensor-parallel rank"),
            Field(
                "engine_pid",
                "int",
                "process of the engine: its own, or the one that started this worker; None unknown",
            ),
            Field("unix_ns", "int", "wall clock at emission", "ns"),
            Field("mono_ns", "int", "monotonic clock at the same instant", "ns"),
            Field("profilemate", "str", "version"),
            Field("vllm", "str", "version"),
            Field("torch", "str", "version"),
            Field("nvtx", "str", "version of the nvtx package"),
            Field("python", "str", "version"),
            Field("graphs", "bool", "CUDA graph hooks are switched on"),
            Field("kv", "bool", "KV cache hooks are switched on"),
            Field("faults", "int", "faults of our own that were kept from the engine so far"),
        ),
    ),
    Kind(
        "hook",
        "one row of the hook table and what became of it in this process",
        (
            Field("name", "str", "name of the hook"),
            Field(
                "status",
                "str",
                "installed; waiting for its module; skipped: this vLLM has no such place; off: its "
                "group is switched off; failed: the place could not be wrapped",
            ),
            Field("target", "str", "module:Class.method"),
            Field("why", "str", "why it is not installed, or the first of its faults"),
            Field("faults", "int", "how often it failed in this process so far, None for never"),
        ),
    ),
    Kind(
        "config",
        "the resolved configuration of an engine, repeated with the session by each of its "
        "processes: some is only known to the worker or to the scheduler",
        (_ENGINE, *(setting.field for setting in CONFIG), Field("instance", "str", _INSTANCE)),
    ),
    Kind(
        "sched.step",
        "one Scheduler.schedule call",
        (
            _given("step", "number of the call in its engine; equals the worker's step"),
            _given("num_tokens", "tokens scheduled", "tokens"),
            _given("num_reqs", "requests scheduled", "requests"),
            _given("new", "requests scheduled for the first time", "requests"),
            Field("preempted", "int", "requests preempted in this call", "requests"),
            _given("running", "requests running after it", "requests"),
            _given(
                "waiting",
                "requests waiting after it, those that wait for a load of KV blocks too",
                "requests",
            ),
            _ENGINE,
        ),
    ),
    Kind(
        "step",
        "one model execution in a worker, eager ones too: a range from the choice of the mode to "
        "the end of execute_model, or, where no mode was chosen (0 tokens), a buffered event; "
        "begins (`ago`) with execute_model",
        (
            Field("step", "int", "number of the execute_model call in its worker"),
            *GRAPH_KEY,
            Field("unpadded", "int", "tokens to run, before padding", "tokens"),
            Field("reqs", "int", "requests scheduled", "requests"),
            Field(
                "prefill_tokens",
                "int",
                "tokens of requests without any output token when they were scheduled: new ones, "
                "and further chunks of their prompt; None in vLLM 0.11, which does not say",
                "tokens",
            ),
            Field("decode_tokens", "int", "the other tokens scheduled", "tokens"),
            Field(
                "launches",
                "int",
                "launches of the model's graphs that the captures let expect: 0 in an eager step "
                "and in one whose graph was not captured yet, None where no capture was seen",
            ),
            Field("dummy", "bool", "a step without requests, to keep ranks in lock-step"),
            _ENGINE,
        ),
    ),
    Kind(
        "step.end",
        "what is known when the range of a step that ran on graphs has ended; as long as the "
        "whole execute_model",
        (
            Field("step", "int", "number of the step, None for a dummy one"),
            Field("seen", "int", "launches of the model's graphs that were seen in it"),
            Field("dummy", "bool", "a step without requests"),
            _ENGINE,
        ),
    ),
    Kind(
        "step.sample",
        "sample_tokens, the rest of a step: vLLM's lm_head and sampler, and a drafter, run in it "
        "after execute_model has returned",
        (Field("step", "int", "number of the step"), _ENGINE),
    ),
    Kind(
        "step.gpu",
        "GPU time of a step's graphs, on request (PROFILEMATE_GPU_TIMING): between CUDA events "
        "recorded before its first launch and after its last, read in a later step",
        (
            Field("step", "int", "number of the step, None for a dummy one"),
            Field("gpu", "int", "from event to event", "ns"),
        ),
    ),
    Kind(
        "graph.capture",
        "a CUDA graph was captured",
        (
            *GRAPH_KEY,
            *_OWNER,
            Field("phase", "str", "real, or profile: captured to measure memory and thrown away"),
            Field(
                "again",
                "int",
                "told once more when a recording begins, for this many captures of the graph and "
                "its pieces since the process began; `ago` is that of the first, `dur` of all",
            ),
        ),
    ),
    Kind(
        "graph.replay",
        "a CUDA graph was launched outside the step's own launches: by a drafter, an encoder, an "
        "unknown place (then mode and owner are None); on request (PROFILEMATE_LAUNCHES) every one",
        (
            *GRAPH_KEY,
            *_OWNER,
            Field("step", "int", "number of the worker's last step, None in a dummy one"),
            Field("dummy", "bool", "inside a dummy step"),
        ),
    ),
    Kind(
        "kv.pool",
        "a BlockPool: emitted at its creation and repeated with the session",
        (
            _POOL,
            Field("num_blocks", "int", "blocks, without the null block", "blocks"),
            Field("block_size", "int", "tokens a block holds (hash block size)", "tokens"),
            Field("caching", "bool", "prefix caching is on"),
            Field("medium", "str", "where the blocks are, GPU if not said"),
            _USED,
            Field("owner", "str", "scheduler: its KV cache manager hands these blocks out"),
            _ENGINE,
        ),
    ),
    _kv(
        "kv.alloc",
        "BlockPool.get_new_blocks: blocks leave the free queue",
        _ids("blocks handed out"),
        _REQ,
    ),
    _kv(
        "kv.evict",
        "cached content is lost: _maybe_evict_cached_block said True",
        _ids("blocks whose hash left the prefix cache"),
        _REQ,
        Field("cause", "str", "alloc: to make room; connector: evict_blocks"),
    ),
    _kv(
        "kv.cache",
        "blocks enter the prefix cache",
        _ids("blocks that got a hash"),
        _REQ,
        Field("group", "int", "KV cache group; left out for group 0, the only one of most models"),
        Field("partial", "bool", "cache_partial_block: a prefix that ends inside the block"),
    ),
    _kv(
        "kv.touch",
        "blocks gain a reference",
        _ids("blocks touched"),
        _ids("those that had none and leave the free queue; None for all of them", "revived"),
        _REQ,
        Field("hit", "bool", "a prefix hit: touched while slots of a request were allocated"),
    ),
    _kv(
        "kv.free",
        "blocks lose a reference",
        _ids("blocks given back"),
        _ids("those that have none left and join the free queue; None for all", "freed"),
        _REQ,
    ),
    _kv(
        "kv.move",
        "a prefix-cache entry moves to another block; no eviction",
        _ids("block that held it", "src"),
        _ids("block that holds it now", "dst"),
    ),
    _kv(
        "kv.reset",
        "reset_prefix_cache",
        Field("ok", "bool", "False: blocks were in use and nothing was reset"),
    ),
    _kv("kv.usage", "usage changed in a way no hook saw", _REQ),
    _kv(
        "kv.alloc_failed",
        "allocate_slots returned None: the request did not fit",
        _REQ,
        Field("free", "int", "free blocks at that moment", "blocks"),
    ),
    Kind(
        "kv.lookup",
        "a prefix-cache lookup, counted where vLLM's own statistics count it",
        (
            _REQ,
            Field("tokens", "int", "tokens asked for", "tokens"),
            Field("hits", "int", "tokens found", "tokens"),
            Field("preempted", "bool", "by a request that was preempted before"),
            _ENGINE,
        ),
    ),
    Kind(
        "preempt",
        "a running request was preempted",
        (
            _REQ,
            Field("blocks", "int", "blocks that became free", "blocks"),
            Field("tokens", "int", "computed tokens that were lost", "tokens"),
            _ENGINE,
        ),
    ),
    Kind(
        "request",
        "a request arrived at the scheduler or left it",
        (
            _REQ,
            Field("what", "str", "arrived or finished"),
            Field("prompt_tokens", "int", "length of the prompt", "tokens"),
            Field("output_tokens", "int", "tokens generated so far", "tokens"),
            Field("status", "str", "how it finished, in vLLM's words"),
            _ENGINE,
        ),
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ROWS}

KV_OPS = tuple(
    k.name
    for k in _ROWS
    if k.name.startswith("kv.") and k.name not in ("kv.pool", "kv.lookup", "kv.alloc_failed")
)
"""The kinds that make up the ordered log of block operations."""
