"""The one loop under every job: units of work into a run folder, restartable anywhere."""
