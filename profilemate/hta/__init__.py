"""Meta's Holistic Trace Analysis on the torch traces of a run."""
