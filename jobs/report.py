#!/usr/bin/env python3
"""One PDF from the results of runs: ``python jobs/report.py results/small`` (the same as ``llmjobs report``)."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
