"""What is served in tests of `profilemate view`."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("not yours")
    file = tmp_path / "run.pftrace"
    file.write_bytes(bytes(range(256)) * 9)
    return file


@pytest.fixture
def ui(tmp_path: Path) -> Path:
    """A user interface in little, with what must not get out."""
    folder = tmp_path / "ui"
    (folder / "v1").mkdir(parents=True)
    (folder / "index.html").write_text("<head><title>UI</title></head>")
    (folder / "service_worker.js").write_text("stay forever")
    (folder / "v1" / "app.wasm").write_bytes(b"\0asm")
    return folder
