"""A session directory as a thing: written, and read back."""
