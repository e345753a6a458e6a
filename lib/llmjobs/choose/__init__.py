"""``llmjobs choose``: which model, at which precision and on which engine, to run under given constraints."""
