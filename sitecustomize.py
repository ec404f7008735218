"""`export PYTHONPATH="$(pwd):$PYTHONPATH"` in a clone: hands on to the door inside the package."""

import importlib.util
import os
import sys

_root = os.path.dirname(os.path.abspath(__file__))
_path = map(os.path.abspath, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
_door = os.path.join(_root, "profilemate", "annotate", "door", "sitecustomize.py")
_spec = importlib.util.spec_from_file_location("sitecustomize", _door)
_module = importlib.util.module_from_spec(_spec)
# An editable install puts the clone on the path too, and asks for nothing by that.
_module.taken, _module.passed = _root in _path, _root
sys.modules["sitecustomize"] = _module
_spec.loader.exec_module(_module)
