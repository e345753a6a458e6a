#!/usr/bin/env python3
"""Agents answer two-turn questions, judges rate them: ``python jobs/mtbench.py manifests/mtbench.yaml``."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["mtbench", *sys.argv[1:]])
