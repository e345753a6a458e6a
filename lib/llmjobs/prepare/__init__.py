"""Before a run: what this machine can do, and what a study will cost."""
