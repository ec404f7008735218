"""What the reader of torch profiler traces is made of.

`inflate` reads and unpacks, `template` learns what the events of a file look like, `scan` reads
thousands of events of known looks at once with the help of `block`, `batch` and `found` keep what
matters of them in `columns`. `reading` is one pass over a text, `parts` makes several of one large
file.
"""
