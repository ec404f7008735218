"""Public API: record what profilemate does not know. See docs/extending.md.

from profilemate.extend import track

track(
    "vllm.custom.module:CustomClass.method",
    kind="my_metric",
    fields=lambda self, arguments, result: {"size": len(result)},
)
"""

from profilemate.annotate.extend import GROUP, PLUGINS, track

__all__ = ["GROUP", "PLUGINS", "track"]
