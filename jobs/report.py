#!/usr/bin/env python3
"""Write a PDF report on runs: ``python jobs/report.py results/small`` (``llmjobs report``)."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
