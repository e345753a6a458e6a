"""From a manifest's ``converse`` section to tasks: one model on one set of conversations with one memory."""

from dataclasses import dataclass
from typing import Any

from llmjobs.converse.conversations import Script, data_hash, make_scripts
from llmjobs.engines.adapters import settings_of
from llmjobs.engines.locate import Located
from llmjobs.errors import ManifestError
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.manifest.chat import ConverseSection
from llmjobs.records import TurnAsked
from llmjobs.work.folder import Revisions
from llmjobs.work.units import Unit

VERSION = 1
"""Version of the conversations, the checks and the recorded fields."""
UNBOUNDED = ("none", "full")
"""Strategies that run once, at the model's context limit."""


@dataclass(frozen=True)
class Memory:
    """One memory: a strategy, and the context in tokens (None: the model's limit)."""

    strategy: str
    context: int | None

    @property
    def history(self) -> bool:
        """Whether earlier turns can be sent at all."""
        return self.strategy != "none"

    def __str__(self) -> str:
        """``window.128``, ``full``."""
        return self.strategy if self.context is None else f"{self.strategy}.{self.context}"


@dataclass(frozen=True)
class ConverseTask:
    """One unit of the converse job."""

    model: ModelSpec
    located: Located | None
    set_name: str
    scripts: tuple[Script, ...]
    memory: Memory
    section: ConverseSection
    error: str | None
    """Why it cannot run, if that is known before anything is loaded."""

    @property
    def path(self) -> str:
        """Folder of the unit below the run."""
        return f"converse/{self.model.name}/{self.set_name}.{self.memory}"

    def unit(self) -> Unit:
        """The unit as the runner sees it."""
        spec, section = self.model, self.section
        declared: dict[str, Any] = {
            "version": VERSION,
            "model": spec.id,
            "revision": self.located.revision if self.located else None,
            "endpoint": spec.endpoint,
            "device_asked": spec.device,
            "dtype_asked": spec.dtype,
            "quantization_asked": spec.quantization,
            **settings_of(spec, self.located),
            "system": spec.system,
            "thinking_asked": spec.thinking,
            "set": self.set_name,
            "conversations": len(self.scripts),
            "strategy": self.memory.strategy,
            "history": self.memory.history,
            "context": self.memory.context,
            "max_new_tokens": section.max_new_tokens,
            "temperature": section.temperature,
            "top_p": section.top_p,
            "seed": section.seed,
            "data_hash": data_hash(self.scripts),
        }
        turns = sum(len(script.turns) for script in self.scripts)
        return Unit(self.path, declared, spec.name, turns, stays=bool(spec.endpoint))


def make_tasks(study: Manifest, revisions: Revisions) -> list[ConverseTask]:
    """All tasks in order: model, set, memory. What cannot run carries its error."""
    section = converse_section(study)
    sets = {
        name: tuple(make_scripts(name, section.conversations, section.seed, section.distances)) for name in section.sets
    }
    tasks = []
    for spec in study.named(section.models):
        located, error = (None, None) if spec.endpoint else revisions.locate(spec)
        tasks += [
            ConverseTask(spec, located, name, scripts, memory, section, error)
            for name, scripts in sets.items()
            for memory in memories(section)
        ]
    return tasks


def memories(section: ConverseSection) -> list[Memory]:
    """Return every memory that the section lists, without duplicates."""
    found: dict[Memory, None] = {}
    for strategy in section.strategies:
        contexts: list[int | None] = [None] if strategy in UNBOUNDED else list(section.contexts)
        found.update(dict.fromkeys(Memory(strategy, context) for context in contexts))
    return list(found)


def converse_section(study: Manifest) -> ConverseSection:
    """The manifest's ``converse`` section.

    Raises:
        ManifestError: it has none.

    """
    if study.converse is None:
        raise ManifestError(f"{study.name}: the manifest has no 'converse:' section; add one ('converse: {{}}' works)")
    return study.converse


def with_limit(study: Manifest, limit: int) -> Manifest:
    """Return the study with at most ``limit`` conversations per set."""
    section = converse_section(study)
    count = min(limit, section.conversations)
    return study.model_copy(update={"converse": section.model_copy(update={"conversations": count})})


def turn_asked(task: ConverseTask, script: Script, turn: int) -> TurnAsked:
    """Return the keys of a record that are known before the turn is asked."""
    message = script.turns[turn]
    return {
        "model": task.model.name,
        "set": task.set_name,
        "conversation": script.id,
        "turn": turn + 1,
        "kind": message.kind,
        "distance": message.distance,
        "strategy": task.memory.strategy,
        "history": task.memory.history,
        "context": task.memory.context,
        "question": message.text,
    }
