"""The plots: each function takes figures that are computed and returns a matplotlib figure."""
