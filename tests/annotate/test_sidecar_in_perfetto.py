"""A sidecar opens in the real Perfetto UI as it is, with its end and without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import browser as browser_
import pytest
from perfetto_ui import opened

from profilemate import schema
from profilemate.annotate.sinks.sidecar import SidecarSink
from profilemate.schema import KINDS

pytestmark = pytest.mark.real


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "killed"])
def test_perfetto_shows_every_message(tmp_path: Path, ended: bool) -> None:
    (tmp_path / "markers").mkdir()
    sink = SidecarSink(lambda: tmp_path)
    texts = []
    for step in range(1, 40):
        texts.append(schema.PREFIX + KINDS["step"].encode(5, None, step, "FULL", 8))
        sink.push(texts[-1])
        sink.pop()
        events = [KINDS["kv.alloc"].encode(9, 4, 0, step, (step, step + 2), f"req-{step}")]
        texts.append(schema.encode_batch(events, t=step * 1000, seq=step))
        sink.mark(texts[-1])
    if ended:
        sink.close()
    else:
        sink.flush()
    (file,) = (tmp_path / "markers").iterdir()
    copy = Path(shutil.copy(file, tmp_path / "sidecar.json"))
    sink.close()  # the one that was "killed", lest its file stays open
    if ended:
        assert {e["name"] for e in json.loads(copy.read_text())} >= set(texts)
    with browser_.launched(browser_.chromium()) as browser, opened(browser, copy) as ui:
        assert sorted(n for (n,) in ui.query("SELECT name FROM slice")) == sorted(texts)
        wrong = "SELECT name FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0"
        assert ui.query(wrong) == []
        assert ui.errors == []
