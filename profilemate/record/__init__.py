"""Recording: the environment and the recorder's flags put together, started, and seen to its end.

`target` finds out what is to be started, `plan` decides on the command, `start` runs it.
"""
