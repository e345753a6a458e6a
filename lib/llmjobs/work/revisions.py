"""Revisions are resolved once per run and stored, so that a resume, online or offline, uses the same commits."""

from dataclasses import dataclass

from llmjobs.engines.locate import Located
from llmjobs.engines.registry import locate
from llmjobs.errors import LlmjobsError
from llmjobs.manifest import ModelSpec
from llmjobs.work.folder import RunFolder, read_object

REVISIONS_FILE = "revisions.json"


@dataclass
class Revisions:
    """The commit of each name when the run first asked for it."""

    folder: RunFolder
    known: dict[str, str]
    writes: bool = True
    """Off for a dry run, which leaves no trace."""

    @classmethod
    def of(cls, folder: RunFolder, *, writes: bool = True) -> "Revisions":
        """Read a run's revisions; empty for a new run."""
        found = read_object(folder.path / REVISIONS_FILE)
        return cls(folder, {name: commit for name, commit in found.items() if isinstance(commit, str)}, writes)

    def known_commit(self, kind: str, name: str, wanted: str | None) -> str | None:
        """The commit that this run recorded for ``name`` at ``wanted``; None if there is none."""
        return self.known.get(_key(kind, name, wanted))

    def record(self, kind: str, name: str, wanted: str | None, commit: str | None) -> None:
        """Store the commit of a name; None (a local folder) is not stored."""
        if commit is not None and self.known.get(_key(kind, name, wanted)) != commit:
            self.known[_key(kind, name, wanted)] = commit
            if self.writes:
                self.folder.write_json(REVISIONS_FILE, dict(sorted(self.known.items())))

    def locate(self, spec: ModelSpec) -> tuple[Located | None, str | None]:
        """Find a model at the commit that this run uses and store it; or return one line on why it cannot be found."""
        known = {"revision": self.known_commit("model", spec.id, spec.revision)}
        if spec.adapter:
            known["adapter_revision"] = self.known_commit("model", spec.adapter, spec.adapter_revision)
        try:
            located = locate(spec.model_copy(update={name: commit for name, commit in known.items() if commit}))
        except LlmjobsError as error:
            return None, str(error)
        if not located.is_local:
            self.record("model", spec.id, spec.revision, located.revision)
        if spec.adapter and located.adapter and not located.adapter.is_local:
            self.record("model", spec.adapter, spec.adapter_revision, located.adapter.revision)
        return located, None


def _key(kind: str, name: str, wanted: str | None) -> str:
    return f"{kind} {name}@{wanted or 'default'}"
