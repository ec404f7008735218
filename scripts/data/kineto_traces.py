"""Makes torch profiler traces of any size, as a busy vLLM with CUDA graphs would leave them.

The same arguments give the same bytes. Names and fields are those of real traces; a step has our
message, vLLM's range, 30 operators, 150 Python functions, 1 to 60 graph launches and the kernels of
its graphs, so that nearly four fifths of the text are kernels: the hardest case for whoever wants
the kernels only.

    python scripts/data/kineto_traces.py out.pt.trace.json.gz --megabytes 300 --layout kineto
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BASE = 1_759_300_074_000_000_000
_KERNELS = (
    "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_{0}x128_64x4_tn_align8>"
    "(cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_{0}x128_64x4_tn_align8::Params)",
    "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16, __nv_bfloat16, "
    "(vllm::Fp8KVCacheDataType)0>(__nv_bfloat16 const*, __nv_bfloat16 const*, __nv_bfloat16*, "
    "__nv_bfloat16*, long const*, long, long, long, long, long, int, int, int, float const*, "
    "float const*)",
    "void flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128, {0}, 128, 4, false, false, "
    "cutlass::bfloat16_t, Flash_kernel_traits<128, {0}, 128, 4, cutlass::bfloat16_t> >, false, "
    "false, false, false, true, false, true, false>(Flash_fwd_params)",
    "triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_{0}",
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>, "
    "std::array<char*, 3ul> >(int, at::native::CUDAFunctor_add<c10::BFloat16>, "
    "std::array<char*, 3ul>)",
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
)
_GRID = '"grid": [{0}, {1}, 1],      "block": [{2}, 1, 1]'


def _layouts() -> dict[str, Callable[[str, str, int, int, int, int | None, str], str]]:
    """How an event is spelled: category, name, process, thread, begin, duration, arguments."""

    def kineto(c: str, n: str, p: int, t: int, ts: int, dur: int | None, args: str) -> str:
        length = "" if dur is None else f'    "dur": {dur // 1000}.{dur % 1000:03}\n    ,\n'
        phase = "X" if dur is not None else "f"
        return (
            f'  {{\n    "ph": "{phase}",\n    "cat": "{c}",\n    "name": "{n}",\n    "pid": {p},\n'
            f'    "tid": {t},\n    "ts": {ts // 1000}.{ts % 1000:03},\n{length}'
            f'    "args": {{\n      {args}\n    }}\n  }}'
        )

    def kineto_2024(c: str, n: str, p: int, t: int, ts: int, dur: int | None, args: str) -> str:
        if dur is None:
            return (
                f'  {{\n    "ph": "f", "id": 7, "pid": {p}, "tid": {t}, "ts": {ts // 1000}.'
                f'{ts % 1000:03},\n    "cat": "{c}", "name": "{n}", "bp": "e"\n  }}'
            )
        return (
            f'  {{\n    "ph": "X", "cat": "{c}", "name": "{n}", "pid": {p}, "tid": {t},\n'
            f'    "ts": {ts // 1000}.{ts % 1000:03}, "dur": {dur // 1000}.{dur % 1000:03},\n'
            f'    "args": {{\n      {args}\n    }}\n  }}'
        )

    def compact(c: str, n: str, p: int, t: int, ts: int, dur: int | None, args: str) -> str:
        length = "" if dur is None else f'"dur":{dur / 1000!r},'
        phase = "X" if dur is not None else "f"
        tight = args.replace(": ", ":").replace(", ", ",").replace(" " * 5, "")
        return (
            f'{{"ph":"{phase}","cat":"{c}","name":"{n}","pid":{p},"tid":{t},"ts":{ts / 1000!r},'
            f'{length}"args":{{{tight}}}}}'
        )

    return {"kineto": kineto, "kineto-2024": kineto_2024, "compact": compact}


LAYOUTS = tuple(_layouts())


def events(size: int, layout: str, seed: int = 1) -> Iterator[str]:
    """The events of a trace whose text has about so many bytes."""
    rng, spell = random.Random(seed), _layouts()[layout]
    names = [k.format(n) for k in _KERNELS for n in (64, 128, 256)]
    shapes = [rng.choices(range(len(names)), k=rng.randrange(4, 400)) for _ in range(12)]
    tails = [
        f'"registers per thread": {rng.choice([32, 64, 128, 255])},      '
        f'"shared memory": {rng.choice([0, 49152, 102400])},      '
        f'"blocks per SM": {rng.choice(["0.50", "4.848485", "12"])},      '
        f'"warps per SM": {rng.choice(["1.939394", "32", "16.50"])},      '
        + _GRID.format(rng.randrange(1, 4096), rng.randrange(1, 64), rng.choice([128, 256, 1024]))
        + f',      "est. achieved occupancy %": {rng.choice([0, 25, 50, 100])}'
        for _ in names
    ]
    done, now, correlation, step = 0, 6_216_626_094_000_000, 0, 0
    while done < size:
        for text in _step(rng, spell, names, tails, shapes, (now, correlation, step)):
            done += len(text) + 2
            yield text
        now, correlation, step = now + 12_000_000, correlation + 100, step + 1


def _step(
    rng: random.Random,
    spell: Callable[..., str],
    names: list[str],
    tails: list[str],
    shapes: list[list[int]],
    at: tuple[int, int, int],
) -> Iterator[str]:
    now, correlation, step = at
    pid, tid, reqs = 4242, 4243, rng.randrange(1, 200)
    text = (
        f"pm1.step step={step} mode=FULL num_tokens={reqs} num_reqs={reqs} uniform=True "
        f"has_lora=False unpadded={reqs} reqs={reqs}"
    )
    number = f'"External id": {correlation + 7},"Record function id": 0, "Ev Idx": {step}'
    yield spell("user_annotation", text, pid, tid, now, 9_000_123, number)
    name = f"execute_context_0(0)_generation_{reqs}({reqs})"
    yield spell("user_annotation", name, pid, tid, now + 100, 9_000_000, number)
    for i in range(30):
        yield spell("cpu_op", f"aten::op_{i}", pid, tid, now + 3000 * i, 2718, number)
    for i in range(150):
        python = f'"Python parent id": {i}, "Python id": {step * 150 + i}, "Ev Idx": {i}'
        function = f"vllm/v1/worker/gpu_model_runner.py({i * 11}): function_{i}"
        yield spell("python_function", function, pid, tid, now + 9000 * i, 31_415, python)
    shape = shapes[rng.randrange(len(shapes))]
    kernels = 0
    begin = now + 1_000_000
    launches = 1 if rng.random() < 0.5 else rng.randrange(2, 60)
    for launch in range(launches):
        call, start = correlation + launch + 1, now + 150_000 * launch
        ids = f'"External id": {call}, "cbid": 311, "correlation": {call}'
        yield spell("cuda_runtime", "cudaGraphLaunch", pid, tid, start, 12_345, ids)
        yield spell("ac2g", "ac2g", pid, tid, start, None, '"bp": 1')
        for node, which in enumerate(shape[: max(3, 400 // launches)]):
            dur = 1000 + which * 997 + rng.randrange(2000)
            ids = (
                f'"External id": {call},      "queued": 0, "device": 0, "context": 1,      '
                f'"stream": 7, "correlation": {call},      {tails[which]},      '
                f'"graph id": 12, "graph node id": {51_539_607_552 + node}'
            )
            yield spell("kernel", names[which], 0, 7, begin, dur, ids)
            begin += dur + 600
            kernels += 1


def text(size: int, layout: str, seed: int = 1) -> Iterator[bytes]:
    """The whole text of a trace, in pieces of a few MB."""
    tight = layout == "compact"
    head: dict[str, Any] = {"schemaVersion": 1, "baseTimeNanoseconds": BASE}
    opened = json.dumps(head, separators=(",", ":")) if tight else json.dumps(head, indent=2)
    start = ',"traceEvents":[' if tight else ',\n  "traceEvents": [\n'
    pieces, length, between = [opened.removesuffix("}").rstrip() + start], 0, ""
    for event in events(size, layout, seed):
        pieces.append(between + event)
        between = "," if tight else ",\n"
        length += len(event)
        if length > 1 << 22:
            yield "".join(pieces).encode()
            pieces, length = [], 0
    yield ("".join(pieces) + ("]}" if tight else "\n  ]\n}\n")).encode()


def write(path: Path, size: int, layout: str, seed: int = 1) -> int:
    """Write a trace, packed if its name says so; return the length of its text."""
    packer: Any = None
    if path.suffix == ".gz":
        try:  # level 1 of zlib takes minutes for what this one does in seconds
            packer = importlib.import_module("isal.isal_zlib").compressobj(2, 8, 31)
        except ImportError:
            packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    written = 0
    with path.open("wb") as file:
        for piece in text(size, layout, seed):
            written += len(piece)
            file.write(packer.compress(piece) if packer else piece)
        if packer:
            file.write(packer.flush())
    return written


def main() -> None:
    """Write one trace."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--layout", choices=LAYOUTS, default="kineto")
    options = parser.parse_args()
    size = write(options.out, int(options.megabytes * 1e6), options.layout)
    print(f"{options.out}: {size / 1e6:.1f} MB of JSON")


if __name__ == "__main__":
    main()
