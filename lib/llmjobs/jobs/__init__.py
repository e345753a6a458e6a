"""The jobs: each turns a manifest into units of work and hands them to the runner."""
