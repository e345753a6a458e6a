#!/usr/bin/env python3
"""Let agents answer two-turn questions and judges rate them: ``python jobs/mtbench.py manifests/mtbench.yaml``."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["mtbench", *sys.argv[1:]])
