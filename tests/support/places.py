"""Where what tests use lies."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
DATA = TESTS / "data"

BUNDLED = DATA / "vllm_cpu_server"
"""The bundled recording of a real server, with what is expected of it."""
RECORDING = BUNDLED / "recording.sqlite"
EXPECTED = BUNDLED / "expected"

SCHEMAS = DATA / "nsys_schemas"
"""What nsys creates its tables with, one file per release."""

LAYOUTS = TESTS / "annotate" / "layouts"
"""Stand-ins for `vllm` and `torch`."""
DOOR = ROOT / "profilemate" / "annotate" / "door"

SUPPORT = TESTS / "support"
INSIDE = SUPPORT / "e2e"
"""Programs that vLLM's own Python runs, and what drives it."""
WITNESS = INSIDE / "witness"
