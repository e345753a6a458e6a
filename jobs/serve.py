#!/usr/bin/env python3
"""Serve the chat agent behind an OpenAI-compatible API: ``python jobs/serve.py llmjobs/demo-base``."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
