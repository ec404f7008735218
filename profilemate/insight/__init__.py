"""What saved sessions mean: figures, findings, comparisons, metrics, the report.

Nothing here sees a recording: a session directory is all it reads.
"""
