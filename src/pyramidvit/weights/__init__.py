"""Checkpoint files: our own and other people's. Nothing here runs code from a file."""
