"""The command line: a thin click command for each job. Nothing heavy is imported before a command runs."""
