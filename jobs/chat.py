#!/usr/bin/env python3
"""Chat with a model in the terminal: ``python jobs/chat.py llmjobs/demo-base`` (``llmjobs chat``)."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["chat", *sys.argv[1:]])
