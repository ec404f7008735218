"""What runs in vLLM's own interpreter: writing the tiny model, and the engine in this process.

``engine.py`` starts this file as a script. A script that wants to look into the engine imports
``make_engine`` and ``generate`` from here and does the rest itself. vLLM and tokenizers are
imported by name because the interpreter that checks this file does not have them.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import (
    BLOCK_SIZE,
    MAX_MODEL_LEN,
    MAX_NUM_SEQS,
    NUM_BLOCKS,
    Request,
    parse_metrics,
    phases,
)


def write_model(directory: Path) -> None:
    """Do what ``engine.make_tiny_model`` promises."""
    tokenizers: Any = importlib.import_module("tokenizers")
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    vocabulary = {char: i for i, char in enumerate(sorted(byte_level.alphabet()))}
    for special in ("<s>", "</s>"):
        vocabulary[special] = len(vocabulary)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": 2048,
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
        "bos_token_id": vocabulary["<s>"],
        "eos_token_id": vocabulary["</s>"],
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    for name, value in (("tokenizer_config.json", tokenizer_config), ("config.json", config)):
        (directory / name).write_text(json.dumps(value, indent=2) + "\n", encoding="ascii")


def make_engine(model: Path, num_blocks: int = NUM_BLOCKS, **options: Any) -> Any:
    """Return an ``LLM`` set up like the server; with ``options`` changed or added."""
    # Read by vLLM when it is imported; see Server for why.
    os.environ.setdefault("VLLM_CACHE_ROOT", str(model / "cache"))
    vllm: Any = importlib.import_module("vllm")
    settings = {
        "model": str(model),
        "load_format": "dummy",
        "max_model_len": MAX_MODEL_LEN,
        "block_size": BLOCK_SIZE,
        "num_gpu_blocks_override": num_blocks,
        "max_num_seqs": MAX_NUM_SEQS,
        "enforce_eager": True,
        "kv_cache_metrics": True,
        "kv_cache_metrics_sample": 1.0,
        # Offline engines count nothing unless told to.
        "disable_log_stats": False,
        **options,
    }
    return vllm.LLM(**settings)


def generate(llm: Any, requests: Sequence[Sequence[Request]] | None = None) -> int:
    """Run the requests (``phases()`` unless told) and return how many were answered in full."""
    vllm: Any = importlib.import_module("vllm")
    answered = 0
    for phase in requests if requests is not None else phases():
        parameters = [
            vllm.SamplingParams(max_tokens=request.max_tokens, temperature=0, ignore_eos=True)
            for request in phase
        ]
        outputs = llm.generate([request.prompt for request in phase], parameters, use_tqdm=False)
        answered += sum(
            len(output.outputs[0].token_ids) == request.max_tokens
            for output, request in zip(outputs, phase, strict=True)
        )
    return answered


def counters() -> dict[str, float]:
    """Return what vLLM counted in this process, in the same form as ``engine.metrics``."""
    prometheus: Any = importlib.import_module("prometheus_client")
    everything = parse_metrics(prometheus.generate_latest().decode())
    return {name: value for name, value in everything.items() if name.startswith("vllm:")}


def main(arguments: Sequence[str]) -> None:
    """Run ``model DIR`` or ``offline MODEL RESULT [NUM_BLOCKS]``."""
    match arguments:
        case ["model", directory]:
            write_model(Path(directory))
        case ["offline", model, result, num_blocks]:
            answered = generate(make_engine(Path(model), int(num_blocks)))
            found = {"answered": answered, "metrics": counters()}
            Path(result).write_text(json.dumps(found, indent=2) + "\n", encoding="ascii")
        case _:
            raise SystemExit(f"inside.py: unknown arguments {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
