"""Fixtures of the tests of parsing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import scanners

from profilemate.parse.readers.kineto import native


@pytest.fixture(scope="module", params=scanners.NAMES)
def scanner(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way to read torch traces in turn: decoded, and scanned."""
    if request.param == "compiled":
        scanners.make_library()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.VARIABLE, request.param)
        yield request.param


@pytest.fixture(scope="module")
def compiled_scanner() -> Iterator[None]:
    """The compiled scanner, whatever the environment says."""
    scanners.make_library()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.VARIABLE, "compiled")
        yield
