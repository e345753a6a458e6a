"""Benchmarks, one file each. They turn rows into prompts and replies into grades, without torch."""
