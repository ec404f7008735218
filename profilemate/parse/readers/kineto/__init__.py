"""What the reader of torch profiler traces is made of.

`inflate` reads and unpacks, `window` holds what is at hand of the text, `event_stream` decodes it
event by event, whatever it looks like. `compiled` takes thousands of events at once off it, by the
library that `native` finds and by what `template` learns of a file. What matters is kept by
`found`. `reading` is one pass over a text, `parts` makes several of one large file.
"""
