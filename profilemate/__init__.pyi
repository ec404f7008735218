from profilemate.api import Session as Session
from profilemate.api import compare_sessions as compare_sessions
from profilemate.api import figures as figures
from profilemate.api import open as open
from profilemate.api import parse_recordings as parse_recordings

__version__: str
__all__: list[str]
