#!/usr/bin/env python3
"""What a conversation loses without its history: ``python jobs/converse.py manifests/chat.yaml``."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["converse", *sys.argv[1:]])
