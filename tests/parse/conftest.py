"""Fixtures of the tests of parsing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import scanners

from profilemate.parse.readers.kineto import native


@pytest.fixture(scope="module", params=scanners.NAMES)
def scanner(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each scanner of torch traces in turn."""
    if request.param == "compiled":
        scanners.make_library()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.VARIABLE, request.param)
        yield request.param
