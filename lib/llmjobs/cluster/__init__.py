"""Run the same units on a Ray cluster. Only ``--ray`` imports this package.

Ray places the workers; this package takes care of the run folder.
"""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class _WhenGone:
    """What to do, in a thread, with the line that reports a lost cluster.

    The library never ends its process, which may be a notebook: it logs the line, and the run's next step raises it.
    Ray's own library ends a driver that lost its cluster after a minute of log lines. So the command line ends the
    process at once instead, and this line is the last one.
    """

    def __init__(self) -> None:
        self.do: Callable[[str], object] = lambda line: log.error("%s", line)


when_gone = _WhenGone()
