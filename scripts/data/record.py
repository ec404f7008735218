"""Records a real vLLM server under a real Nsight Systems, and keeps what may be shared.

The run has a bare environment and a folder with a neutral name; the export is scrubbed to what the
readers need. The golden tables beside it are not touched: `pytest --update-references` does that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support" / "e2e"), str(ROOT / "scripts" / "env")]

import engine  # noqa: E402
import environments  # noqa: E402

from profilemate.scrub.scrub import scrub  # noqa: E402

TARGET = ROOT / "tests" / "data" / "vllm_cpu_server" / "recording.sqlite"


def main() -> None:
    """Record, scrub, and put the result in its place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=TARGET, help="where to write it")
    options = parser.parse_args()
    python, nsys = environments.vllm_and_nsys()
    with tempfile.TemporaryDirectory(prefix="recording-") as name:
        folder = Path(name)
        model = engine.make_tiny_model(folder / "model", python)
        server = engine.Server(
            python,
            model,
            folder,
            nsys=nsys,
            pythonpath=[ROOT / "profilemate" / "annotate" / "door"],
            # Otherwise vLLM 0.32 kills its engine before Nsight Systems has everything.
            extra_args=("--shutdown-timeout", "20"),
        )
        with server:
            print(engine.workload(server))
            print(engine.metrics(server))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.unlink(missing_ok=True)
        scrub(server.report, options.output, nsys=nsys, cache_dir=folder / "exports")
    print(f"wrote {options.output} ({options.output.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
