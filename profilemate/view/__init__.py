"""Opens a timeline in the browser, from this machine alone.

`site` says what there is to serve, `server` serves exactly that on 127.0.0.1 and knows when the
tab is closed.
"""
