"""What the comparisons share: contenders that are interleaved, the server under load, results on disk."""
