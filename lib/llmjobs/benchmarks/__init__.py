"""Benchmarks, one file each. No torch: rows in, strings and judgements out."""
