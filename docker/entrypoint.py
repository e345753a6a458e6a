#!/opt/llmjobs/bin/python -I
"""Starts llmjobs as the owner of the results folder, never as root where the container allows to change.

The container starts as root only to learn whose folder was mounted; the job itself runs as that person, so its files
are theirs. A folder that belongs to root (Docker makes a missing one so) is given to the image's own user. Started
with ``--user``, or without the capability to change users, it stays who it is. ``exec`` keeps the process number, so
that signals reach the job itself.
"""

import contextlib
import os
import sys
from pathlib import Path

RESULTS = Path("/app/results")
CACHE = Path("/cache")
OWN_ID = 10001
PROGRAM = "/opt/llmjobs/bin/llmjobs"


def become(user: int, group: int) -> None:
    """Give up root for good."""
    for folder in (RESULTS, CACHE):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == 0:
                os.chown(folder, user, group)
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)


def main() -> None:
    """Drop root, check that results can be written, exec the command."""
    if os.geteuid() == 0:
        owner = RESULTS.stat()
        with contextlib.suppress(PermissionError):
            become(owner.st_uid or OWN_ID, owner.st_gid or OWN_ID)
    if not os.access(RESULTS, os.W_OK) and "--help" not in sys.argv:
        mine = 'add --user "$(id -u):$(id -g)" to docker run, or make the folder writable'
        print(f"llmjobs: {RESULTS} cannot be written by user {os.geteuid()}; {mine}", file=sys.stderr)
        sys.exit(1)
    os.execv(PROGRAM, [PROGRAM, *sys.argv[1:]])


if __name__ == "__main__":
    main()
