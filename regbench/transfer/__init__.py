"""Finished runs as a file: from one tracking store into it, and from it into another."""
