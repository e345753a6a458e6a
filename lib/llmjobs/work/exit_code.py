"""How a job ended, and the exit code that follows: failed units, questions in error, a signal."""

from dataclasses import dataclass, field

from llmjobs.errors import EXIT_OK, EXIT_RESUMABLE, EXIT_UNITS_FAILED


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
        """0: all units done; 3: units or calls failed, or questions ended in an error; 75: stopped and resumable."""
        if self.stopped_by:
            return EXIT_RESUMABLE
        return EXIT_UNITS_FAILED if self.failed or self.in_error else EXIT_OK


def exit_code_of_all(codes: list[int]) -> int:
    """The exit code of several jobs: 75 if the last one was stopped, otherwise 3 if any was not 0."""
    if codes and codes[-1] == EXIT_RESUMABLE:
        return EXIT_RESUMABLE
    return EXIT_UNITS_FAILED if any(codes) else EXIT_OK
