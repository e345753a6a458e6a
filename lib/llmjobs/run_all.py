"""``llmjobs run``: every job that a manifest has a section for, in order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmjobs.errors import EXIT_OK, EXIT_RESUMABLE, EXIT_UNITS_FAILED, ManifestError
from llmjobs.extensions import JOBS, load
from llmjobs.manifest import Manifest


def wanted(study: Manifest) -> list[str]:
    """The manifest's sections that are jobs, in order.

    Raises:
        ManifestError: it has none.

    """
    found = [name for name in JOBS if getattr(study, name, None) is not None]
    if not found:
        raise ManifestError(f"{study.name}: the manifest has no job; add one of {', '.join(f'{j}:' for j in JOBS)}")
    return found


def run_all(study: Manifest, results: Path, *, fresh: bool = False, ray: str | None = None) -> int:
    """Run each section's job; returns an exit code: 75 stops at once, 3 is returned at the end."""
    code = EXIT_OK
    for name in wanted(study):
        job: Callable[..., Any] = load(JOBS[name].module).run
        outcome = job(study, results, fresh=fresh, ray=ray)
        fresh = False
        if outcome.exit_code == EXIT_RESUMABLE:
            return EXIT_RESUMABLE
        code = code or outcome.exit_code
    return EXIT_UNITS_FAILED if code else EXIT_OK
