"""Shared code of the comparisons: contenders that are interleaved, the server under load, results on disk."""
