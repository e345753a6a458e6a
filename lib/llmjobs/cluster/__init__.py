"""The same units on a Ray cluster. Ray places and restarts; here is only what a run folder needs. Imported by --ray."""
