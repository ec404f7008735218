"""The door for `PYTHONPATH`: `export PYTHONPATH="$(profilemate annotate path):$PYTHONPATH"`.

Python imports this file at the start of every process, so it is small: it waits for vLLM, and
hands on to the `sitecustomize` that it hides, if there is one. The one in the root of a clone comes
here too, and says so with `taken` and `passed`.
"""

import importlib.machinery
import importlib.util
import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
_root = os.path.dirname(os.path.dirname(os.path.dirname(_here)))
_place = globals().get("passed", _here)  # the folder that was found on the path
_own_folders = {_here, _place}

if globals().get("taken", True) and os.environ.get("PROFILEMATE", "").strip().lower() != "off":
    try:
        if importlib.util.find_spec("profilemate") is None:
            sys.path.append(_root)
        from profilemate.annotate.plugin import watch

        watch()
    except ImportError as e:
        sys.stderr.write(f"[profilemate] not loaded, vLLM is not annotated: {e}\n")

# Ours is found first; the one behind it on the path, which it hides, must run as if we were not
# here. It may be another clone's, or hand on to us again: none of ours takes one twice.
_seen = sys.__dict__.setdefault("_profilemate_doors", set())
_seen |= _own_folders
_path = [os.path.abspath(p or ".") for p in sys.path]
for _next in _path[_path.index(_place) + 1 if _place in _path else 0 :]:
    if _next in _seen:
        continue
    _spec = importlib.machinery.PathFinder.find_spec("sitecustomize", [_next])
    if _spec is not None and _spec.loader is not None:
        _seen.add(_next)
        _module = importlib.util.module_from_spec(_spec)
        sys.modules["sitecustomize"] = _module
        _spec.loader.exec_module(_module)
        break
