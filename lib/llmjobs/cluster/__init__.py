"""The same units on a Ray cluster. Ray places workers; this package does what a run folder needs. Imported by --ray."""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class _WhenGone:
    """What to do, in a thread, with the line that reports a lost cluster.

    Nothing of the library ends its process, which may be a notebook's: the line is logged and the run's next step
    raises it. Ray's own library does end a driver without a cluster, after a minute of log lines; so the command line
    puts an end of its own here, which is at once and leaves this line as the last one.
    """

    def __init__(self) -> None:
        self.do: Callable[[str], object] = lambda line: log.error("%s", line)


when_gone = _WhenGone()
