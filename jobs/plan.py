#!/usr/bin/env python3
"""Estimate time, memory and disk: ``python jobs/plan.py manifests/small.yaml`` (``llmjobs plan``)."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["plan", *sys.argv[1:]])
