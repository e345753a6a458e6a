#!/usr/bin/env python3
"""Run every job of a manifest, then write the report: ``python jobs/run.py manifests/demo.yaml`` (``llmjobs run``)."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
