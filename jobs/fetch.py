#!/usr/bin/env python3
"""Download the models and data of a manifest: ``python jobs/fetch.py manifests/small.yaml`` (``llmjobs fetch``)."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["fetch", *sys.argv[1:]])
