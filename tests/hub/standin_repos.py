"""The repositories of the stand-in hub, each with one commit; possible faults; and requests seen."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGE = (".safetensors", ".bin", ".parquet")


@dataclass
class Repo:
    """One repository: files of one commit, and who may read them."""

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    allowed: set[str] = field(default_factory=set)
    """Tokens with access to a gated or private repository."""
    removed: set[str] = field(default_factory=set)
    """Revisions that used to exist."""

    @property
    def commit(self) -> str:
        """A commit hash that changes with the content."""
        total = hashlib.sha1()
        for path, content in sorted(self.files.items()):
            total.update(path.encode() + b"\0" + content)
        return total.hexdigest()

    def knows(self, revision: str) -> bool:
        return revision not in self.removed and revision in ("main", self.commit)


@dataclass
class Fault:
    """What goes wrong for paths that match, ``times`` times."""

    pattern: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int = 0
    """Bytes after which the connection breaks."""
    bytes_per_s: int = 0
    corrupt: bool = False

    def take(self, path: str) -> bool:
        if self.times > 0 and re.search(self.pattern, path):
            self.times -= 1
            return True
        return False


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    token: str | None
    range: str | None
    store: bool


def tree_entry(path: str, content: bytes) -> dict[str, Any]:
    """A file as the tree lists it: the git blob's hash, and SHA-256 for large files."""
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    found: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if path.endswith(LARGE):
        found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
    return found


def read_folder(folder: Path) -> dict[str, Repo]:
    """Repositories from ``folder/ORG/NAME/…``."""
    return {
        f"{repo.parent.name}/{repo.name}": Repo(
            {str(p.relative_to(repo)): p.read_bytes() for p in sorted(repo.rglob("*")) if p.is_file()}
        )
        for repo in sorted(folder.glob("*/*"))
        if repo.is_dir()
    }
