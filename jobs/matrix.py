#!/usr/bin/env python3
"""Compare devices and precisions: ``python jobs/matrix.py manifests/matrix.yaml`` (``llmjobs matrix``)."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["matrix", *sys.argv[1:]])
