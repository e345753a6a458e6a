#!/usr/bin/env python3
"""Measure how much answers depend on the conversation history: ``python jobs/converse.py manifests/chat.yaml``."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["converse", *sys.argv[1:]])
