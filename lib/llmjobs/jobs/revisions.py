"""Revisions are resolved once a run and kept beside it: a resume, online or offline, uses the same commits."""

from dataclasses import dataclass
from typing import Any

from llmjobs.runfolder.folder import RunFolder, read_json

REVISIONS_FILE = "revisions.json"


@dataclass
class Revisions:
    """What each name stood for when the run first asked."""

    folder: RunFolder
    known: dict[str, str]
    writes: bool = True
    """Off for a dry run, which leaves no trace."""

    @classmethod
    def of(cls, folder: RunFolder, *, writes: bool = True) -> "Revisions":
        """Read a run's revisions; empty for a new run."""
        path = folder.path / REVISIONS_FILE
        found: Any = read_json(path) if path.exists() else {}
        return cls(folder, dict(found) if isinstance(found, dict) else {}, writes)

    def known_commit(self, kind: str, name: str, wanted: str | None) -> str | None:
        """The commit that this run recorded for ``name`` at ``wanted``; None if it never asked."""
        return self.known.get(_key(kind, name, wanted))

    def record(self, kind: str, name: str, wanted: str | None, commit: str | None) -> None:
        """Keep what a name stood for; None (a local folder) is not kept."""
        if commit is not None and self.known.get(_key(kind, name, wanted)) != commit:
            self.known[_key(kind, name, wanted)] = commit
            if self.writes:
                self.folder.write_json(REVISIONS_FILE, dict(sorted(self.known.items())))


def _key(kind: str, name: str, wanted: str | None) -> str:
    return f"{kind} {name}@{wanted or 'default'}"
