"""What the reader of torch profiler traces is made of.

`inflate` reads and unpacks, `template` learns what the events of a file look like, `scan` reads
thousands of events of known looks at once, `found` keeps what comes of it.
"""
