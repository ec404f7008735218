"""Recordings fit to be shown to others."""
