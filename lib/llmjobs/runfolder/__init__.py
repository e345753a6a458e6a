"""The run folder: JSONL is the truth, the pickle is a cursor. No torch, no network."""
