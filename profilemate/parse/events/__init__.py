"""Texts of messages to events in columns, by the vocabulary of `schema`."""
