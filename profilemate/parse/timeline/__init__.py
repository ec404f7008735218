"""From a trace to a timeline: what goes on which track, pure and without any file format.

`build.timeline` yields batches of events, each for one track, in numpy columns; a writer spells
them. `tracks` holds the shapes alone, so that a writer needs to know nothing else.
"""
