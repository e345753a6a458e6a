"""Before a run: what this machine can do, what a study will take, and fetching it."""
