#!/usr/bin/env python3
"""Fill the cache for a machine without network: ``python jobs/fetch.py manifests/small.yaml`` (``llmjobs fetch``)."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["fetch", *sys.argv[1:]])
