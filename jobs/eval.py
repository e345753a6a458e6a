#!/usr/bin/env python3
"""Measure the accuracy of models on benchmarks: ``python jobs/eval.py manifests/small.yaml`` (``llmjobs eval``)."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["eval", *sys.argv[1:]])
