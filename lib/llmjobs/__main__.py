"""``python -m llmjobs``: the same as the ``llmjobs`` command."""

from llmjobs.cli import main

if __name__ == "__main__":
    main()
