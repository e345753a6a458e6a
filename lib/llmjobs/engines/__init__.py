"""What runs a model: one engine for each way in which people run it."""
