"""The charting library: the one place that touches it.

vl-convert holds Vega, Vega-Lite and Vega-Embed, gives them as one script to put into a page, and
draws the same specifications as pictures without a browser; it needs no network for either.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from profilemate.errors import ToolError, missing_extra

if TYPE_CHECKING:
    from types import ModuleType

VEGA_LITE = "6.4"
"""The version that the charts were looked at with; the newest where vl-convert no longer has it."""
_SNIPPET = "window.vegaEmbed = vegaEmbed;"


def library() -> ModuleType:
    """vl-convert.

    Raises:
        ToolError: It is not installed.
    """
    try:
        import vl_convert
    except ImportError as e:
        raise ToolError(
            "the report needs vl-convert, which is not installed",
            hint="Install what it needs:",
            command=missing_extra("report"),
        ) from e
    return vl_convert


def _version() -> str:
    there = [str(v) for v in library().get_vegalite_versions()]
    return VEGA_LITE if VEGA_LITE in there else there[-1]


@cache
def script() -> str:
    """The library as one script for a page, which then has `vegaEmbed`."""
    text = str(library().javascript_bundle(_SNIPPET, vl_version=_version()))
    # In a page a script ends at the first of these; in the library they only occur in strings.
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def png(spec: dict[str, Any], scale: float) -> bytes:
    """A specification that has its data, as a picture."""
    return bytes(library().vegalite_to_png(spec, vl_version=_version(), scale=scale))
