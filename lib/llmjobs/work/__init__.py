"""The restartable run: units of work into a run folder."""
