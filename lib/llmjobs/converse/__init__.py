"""The converse job: scripted conversations with history and without."""
