"""Paths to what each recording holds: which files, read here, by processes or by a cluster."""
