"""How a job ended (failed units, questions in error, a signal), and which exit code follows."""

from dataclasses import dataclass, field

from llmjobs.exit_codes import EXIT_OK, EXIT_RESUMABLE, EXIT_UNITS_FAILED


@dataclass
class Outcome:
    """How a job ended."""

    units: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Unit path → the line that gives the reason; units with failed calls too."""
    stopped_by: str | None = None
    """Name of the signal that ended it."""
    in_error: int = 0
    """Questions of finished units that ended in an error; the job counts them."""
    knows_units: bool = False
    """It was not stopped before its units were listed."""

    @property
    def exit_code(self) -> int:
        """``EXIT_OK`` if all units are done, ``EXIT_RESUMABLE`` if it was stopped.

        ``EXIT_UNITS_FAILED`` if units or calls failed, or questions ended in an error.
        """
        if self.stopped_by:
            return EXIT_RESUMABLE
        return EXIT_UNITS_FAILED if self.failed or self.in_error else EXIT_OK


def exit_code_of_all(codes: list[int]) -> int:
    """The exit code of several jobs: ``EXIT_RESUMABLE`` if the last one was stopped, otherwise whether any failed."""
    if codes and codes[-1] == EXIT_RESUMABLE:
        return EXIT_RESUMABLE
    return EXIT_UNITS_FAILED if any(codes) else EXIT_OK
