#!/usr/bin/env python3
"""Say which model and precision to run: ``python jobs/choose.py results/small`` (``llmjobs choose``)."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["choose", *sys.argv[1:]])
