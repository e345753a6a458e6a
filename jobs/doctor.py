#!/usr/bin/env python3
"""Check what this machine can do: ``python jobs/doctor.py [MANIFEST]`` (``llmjobs doctor``)."""

import sys

from llmjobs.cli import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])
