"""How a live session lies on the disk: the names that the running vLLM and the parser share."""

from __future__ import annotations

MARKERS = "markers"
"""Folder of the sidecars, in the session directory."""

SIDECAR = "profilemate_sidecar"
"""Name of the metadata event that a sidecar begins with; its `args` say who wrote it."""

SIDECAR_END = "profilemate_end"
"""Name of the metadata event that ends a sidecar. Without it the process was killed."""

METADATA = "metadata.json"
RECORDING = "recording"
"""Key of `metadata.json` that is true until the session was parsed."""

LOCK = ".finalise"
"""File in the session directory that is locked while its tables are being written."""

LOG = "parse.log"
"""What was said while they were written."""

RUN_LINK = ".run-"
"""Beside the session: a link to it whose name ends with the run's, while the run goes on."""
