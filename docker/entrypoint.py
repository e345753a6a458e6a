#!/opt/llmjobs/bin/python -I
"""Start llmjobs as the owner of the results folder, never as root if the container can change users.

The container starts as root only to find out who owns the mounted folder. The job itself runs as that user, so its
files belong to them. A folder that belongs to root (as when Docker creates it) is given to the image's own user. The
user does not change with ``--user``, without the capability to change users, or in a user namespace, where root is the
person who started the container. ``exec`` keeps the process number, so that signals reach the job itself.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

RESULTS = Path("/app/results")
CACHE = Path("/cache")
OWN_ID = 10001
PROGRAM = "/opt/llmjobs/bin/llmjobs"
RAY = "/opt/llmjobs/bin/ray"
RAY_PORT = 6379
KEPT_IN_RESULTS = {"README.md", ".gitignore"}
READS_ONLY = ("--help", "-h", "--version")


def is_really_root() -> bool:
    """Whether user 0 is the machine's root, and not a person in their own user namespace (rootless engines)."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split()[:2] == ["0", "0"]


def runs() -> list[Path]:
    """The run folders among the results; nothing else is touched, in case a wrong folder was mounted."""
    return [path for path in RESULTS.iterdir() if not path.is_symlink() and (path / "manifest.yaml").is_file()]


def below(folder: Path) -> Iterator[Path]:
    """A folder and everything in it, links not followed."""
    yield folder
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in folders + files)


def give(path: Path, user: int, group: int) -> None:
    """Change the owner of what root left, except links and files with a second name elsewhere."""
    found = path.lstat()
    if found.st_uid == 0 and not path.is_symlink() and (path.is_dir() or found.st_nlink == 1):
        os.chown(path, user, group, follow_symlinks=False)


def become(user: int, group: int) -> None:
    """Give what root left in the results and the cache to ``user``, then drop root permanently."""
    made = runs()
    if made or {path.name for path in RESULTS.iterdir()} <= KEPT_IN_RESULTS:
        give(RESULTS, user, group)
    for run in made:
        for path in below(run):
            give(path, user, group)
    with contextlib.suppress(OSError):
        give(CACHE, user, group)
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)


def command(arguments: list[str]) -> list[str]:
    """``ray-head`` and ``ray-worker HEAD[:PORT]`` start a node of a Ray cluster (docs/cluster.md); else llmjobs."""
    if arguments[:1] == ["ray-head"]:
        start = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false"]
        return [RAY, "start", "--block", "--disable-usage-stats", *start, *arguments[1:]]
    if arguments[:1] == ["ray-worker"]:
        if len(arguments) < 2 or arguments[1].startswith("-"):
            sys.exit("llmjobs: ray-worker needs the head's name: ray-worker HEAD[:PORT]")
        address = arguments[1] if ":" in arguments[1] else f"{arguments[1]}:{RAY_PORT}"
        return [RAY, "start", "--block", "--disable-usage-stats", f"--address={address}", *arguments[2:]]
    return [PROGRAM, *arguments]


def main() -> None:
    """Drop root, check that results can be written, exec the command."""
    if is_really_root():
        owner = RESULTS.stat()
        with contextlib.suppress(PermissionError):
            become(owner.st_uid or OWN_ID, owner.st_gid if owner.st_uid else OWN_ID)
    if not os.access(RESULTS, os.W_OK) and not {*sys.argv}.intersection(READS_ONLY):
        mine = 'add --user "$(id -u):$(id -g)" to docker run, or make the folder writable'
        print(f"llmjobs: {RESULTS} cannot be written by user {os.geteuid()}; {mine}", file=sys.stderr)
        sys.exit(1)
    program, *arguments = command(sys.argv[1:])
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main()
