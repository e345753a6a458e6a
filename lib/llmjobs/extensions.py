"""The jobs and context strategies by name, with the code behind each. A new one is one entry here.

Benchmarks have a separate table (:mod:`llmjobs.benchmarks.registry`), and so do the chapters of the report
(:data:`llmjobs.make_report.ORDER`). Nothing is imported before it is used, so that ``--help`` stays quick.
"""

from importlib import import_module
from typing import Any, NamedTuple


class JobEntry(NamedTuple):
    """One job: a section of the manifest, and the command of the same name."""

    module: str
    """Has ``run(study, results, *, fresh, ray) -> Outcome`` and ``dry_run(study, results) -> str``; with ``limit`` also
    ``with_limit(study, limit)``; with ``show``, ``run`` takes ``show=``."""
    summary: str
    """Its line in ``llmjobs --help``."""
    help: str
    """Text of ``llmjobs JOB --help``."""
    dry_run: str = "Show what would run, without loading a model."
    """Help of ``--dry-run``."""
    limit: str | None = None
    """Help of ``--limit``; None: the command has no such option."""
    show: str | None = None
    """Help of ``--show``; None: the command has no such option."""


JOBS = {
    "eval": JobEntry(
        "llmjobs.eval.job",
        "Measure the accuracy of models on benchmarks.",
        "Evaluate the models of MANIFEST on its benchmarks. Resumes a run that was stopped.",
        limit="Ask only the first N questions of each subject.",
        show="Print each question, the model's answer, and whether it is right.",
    ),
    "matrix": JobEntry(
        "llmjobs.matrix.job",
        "Compare devices and precisions: time, memory, energy, accuracy.",
        """Measure the models of MANIFEST on every device and precision, each in its own process.

        The table shows time, memory, energy and accuracy side by side, and which answers a precision changes. If this
        machine cannot run a combination, the table gives the reason. Resumes a run that was stopped.
        """,
        dry_run="Probe the machine and show which cells would run, without loading a model.",
    ),
    "converse": JobEntry(
        "llmjobs.converse.job",
        "Measure how much answers depend on the conversation history.",
        """Run the scripted conversations of MANIFEST, with and without history, under each context strategy.

        Resumes a run that was stopped.
        """,
        limit="Use only the first N conversations of each set.",
        show="Print the conversations with every answer, right or wrong.",
    ),
    "mtbench": JobEntry(
        "llmjobs.mtbench.job",
        "Run MT-Bench: agents answer two-turn questions, judges rate them.",
        """Let the agents of MANIFEST answer the questions, and its judges rate them. Resumes a run that was stopped.

        Answers and judgments are also written in FastChat's format, to mtbench/fastchat in the run's folder.
        """,
        dry_run="Show what would run and what it could cost, without calling any model.",
        limit="Ask only the first N questions of each category.",
        show="Print every answer and every judgment.",
    ),
}
"""Section of the manifest → job, in the order in which ``llmjobs run`` takes them."""

STRATEGIES = {
    "none": "llmjobs.chat.strategies:NoHistory",
    "full": "llmjobs.chat.strategies:Full",
    "window": "llmjobs.chat.strategies:Window",
    "summary": "llmjobs.chat.strategies:Summary",
    "retrieve": "llmjobs.chat.strategies:Retrieve",
    "hybrid": "llmjobs.chat.strategies:Hybrid",
}
"""Name → class, in the order in which reports list them."""


def load(place: str) -> Any:
    """Import what ``module:name`` names, or the module itself."""
    module, _, name = place.partition(":")
    found = import_module(module)
    return getattr(found, name) if name else found
