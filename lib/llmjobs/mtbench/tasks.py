"""From a manifest's ``mtbench`` section to tasks: agents that answer, and judges over one or two of them."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

from llmjobs.engines.adapters import settings_of
from llmjobs.engines.locate import Located
from llmjobs.errors import DataError, ManifestError
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.manifest.fields import slug
from llmjobs.manifest.mtbench import JudgeSpec, MTBenchSection
from llmjobs.mtbench.fastchat import Answer, read_answers, with_references
from llmjobs.mtbench.judging import RULES_VERSION, PromptSet, read_prompts
from llmjobs.mtbench.questions import Question, data_hash, read_questions, select
from llmjobs.work.folder import Revisions
from llmjobs.work.units import Unit

VERSION = 1
"""Version of the recorded fields."""
FOLDER = "mtbench"
NO_HISTORY = ".no-history"
"""Appended to a model's name if it answers without history."""


@dataclass(frozen=True)
class AgentTask:
    """One agent's answers, from a model of the manifest or from a file."""

    noun: ClassVar[str] = "answers"
    agents: ClassVar[tuple["AgentTask", ...]] = ()
    """Those whose answers it needs."""

    name: str
    spec: ModelSpec | None
    history: bool
    declared: Mapping[str, Any]
    imported: Mapping[str, Answer]
    questions: int
    error: str | None = None
    """Why it cannot answer, if that is known before anything is loaded."""

    @property
    def path(self) -> str:
        """Folder of the unit below the run."""
        return f"{FOLDER}/answers/{self.name}"

    @property
    def size(self) -> int:
        """Number of its records."""
        return self.questions

    @property
    def is_endpoint(self) -> bool:
        """Whether its records come from calls."""
        return bool(self.spec and self.spec.endpoint)

    def unit(self) -> Unit:
        """The unit that the runner sees."""
        group = self.spec.name if self.spec else self.name
        stays = self.spec is None or bool(self.spec.endpoint)
        return Unit(self.path, self.declared, group, self.questions, stays=stays)


@dataclass(frozen=True)
class JudgeTask:
    """One judge over one agent (``single``) or two (``pairwise``)."""

    noun: ClassVar[str] = "judgments"

    judge: JudgeSpec
    mode: str
    agents: tuple[AgentTask, ...]
    declared: Mapping[str, Any]
    judgments: int
    error: str | None = None

    @property
    def path(self) -> str:
        """Folder of the unit below the run."""
        return f"{FOLDER}/judgments/{self.judge.name}/{self.mode}/{'--'.join(agent.name for agent in self.agents)}"

    @property
    def size(self) -> int:
        """Number of its records."""
        return self.judgments

    @property
    def is_endpoint(self) -> bool:
        """Whether its records come from calls."""
        return bool(self.judge.endpoint)

    def unit(self) -> Unit:
        """The unit that the runner sees."""
        needs = tuple(agent.path for agent in self.agents)
        stays = bool(self.judge.endpoint) or self.judge.is_rules
        return Unit(self.path, self.declared, f"judge {self.judge.name}", self.judgments, needs, stays)


@dataclass(frozen=True)
class Bench:
    """Everything that a run consists of."""

    section: MTBenchSection
    questions: tuple[Question, ...]
    prompts: PromptSet
    agents: tuple[AgentTask, ...]
    judges: tuple[JudgeTask, ...]

    @property
    def tasks(self) -> dict[str, AgentTask | JudgeTask]:
        """Tasks by path, answers before judgments."""
        tasks: list[AgentTask | JudgeTask] = [*self.agents, *self.judges]
        return {task.path: task for task in tasks}

    def turns(self) -> list[tuple[Question, int]]:
        """What is judged for one agent: every question's turns, from 1."""
        return [(question, turn) for question in self.questions for turn in range(1, len(question.turns) + 1)]

    def has_reference(self, question: Question, turn: int) -> bool:
        """Whether a judge sees a reference for this turn."""
        is_asked_for = question.category in self.section.reference_categories
        return is_asked_for and question.reference is not None and len(question.reference) >= turn


def mtbench_section(study: Manifest) -> MTBenchSection:
    """The manifest's ``mtbench`` section.

    Raises:
        ManifestError: it has none.

    """
    if study.mtbench is None:
        raise ManifestError(f"{study.name}: the manifest has no 'mtbench:' section; add one ('mtbench: {{}}' works)")
    return study.mtbench


def with_limit(study: Manifest, limit: int) -> Manifest:
    """Return the study with at most ``limit`` questions per category."""
    section = mtbench_section(study)
    count = min(limit, section.limit or limit)
    return study.model_copy(update={"mtbench": section.model_copy(update={"limit": count})})


def make_bench(study: Manifest, revisions: Revisions) -> Bench:
    """Read questions, prompts and imported answers, and list all tasks in order.

    Raises:
        DataError: a file cannot be read, or settings contradict each other.

    """
    section = mtbench_section(study)
    questions = read_questions(section.questions)
    if section.references:
        questions = with_references(questions, Path(section.references))
    questions = select(questions, section.categories, section.limit)
    prompts = read_prompts(section.prompts)
    _check_endpoints(study, section)
    models = study.models if section.agents == "models" else []
    agents = [task for spec in models for task in _model_agents(spec, section, questions, revisions)]
    agents += [_imported_agent(entry.file, entry.name, questions) for entry in section.answers]
    _check_names(section, agents)
    judges = [
        task for judge in section.judges for task in _judge_tasks(judge, section, agents, questions, prompts, revisions)
    ]
    return Bench(section, tuple(questions), prompts, tuple(agents), tuple(judges))


def _check_endpoints(study: Manifest, section: MTBenchSection) -> None:
    known = {spec.name: spec for spec in study.models}
    for name in section.endpoints:
        if name not in known or not known[name].endpoint:
            raise DataError(
                f"mtbench.endpoints: '{name}' is not a model with an endpoint; use the name of a model that has "
                "endpoint: under models:"
            )
    for spec in study.models if section.spending.cost is not None and section.agents == "models" else ():
        limits = section.endpoints.get(spec.name)
        if spec.endpoint and (limits is None or limits.price is None):
            raise DataError(
                f"mtbench.spending.cost needs the price of every endpoint; add mtbench.endpoints.{spec.name}.price"
            )


def _check_names(section: MTBenchSection, agents: Iterable[AgentTask]) -> None:
    names = [agent.name for agent in agents]
    lower = [name.lower() for name in names]
    if twice := next((name for name in names if lower.count(name.lower()) > 1), None):
        raise DataError(f"mtbench: two agents have the name {twice!r}; add a different name: to an entry of answers:")
    if section.baseline and section.baseline not in names:
        raise DataError(f"mtbench.baseline: '{section.baseline}' is not one of {', '.join(names)}")
    if section.judges and not names:
        raise DataError("mtbench: there are no answers to judge; add models: or answers:")


def _model_agents(
    spec: ModelSpec, section: MTBenchSection, questions: list[Question], revisions: Revisions
) -> list[AgentTask]:
    located, error = _locate(spec, revisions)
    tasks = []
    for history in {"on": (True,), "off": (False,), "both": (True, False)}[section.history]:
        declared = _declared_model(spec, located) | {
            "system": spec.system or section.system,
            "history": history,
            "strategy": section.strategy,
            "context": section.max_context,
            "max_new_tokens": section.max_new_tokens,
            "temperatures": dict(section.temperatures),
            "top_p": section.top_p,
            "seed": section.seed,
            "data_hash": data_hash(questions),
        }
        name = spec.name if history else spec.name + NO_HISTORY
        tasks.append(AgentTask(name, spec, history, declared, {}, len(questions), error))
    return tasks


def _imported_agent(file: str, name: str, questions: list[Question]) -> AgentTask:
    path = Path(file)
    found = read_answers(path)
    if len(found.models) > 1:
        raise DataError(f"{path}: contains answers of {len(found.models)} models; keep one model per file")
    wanted = {question.id for question in questions}
    answers = {answer.question_id: answer for answer in found.answers if answer.question_id in wanted}
    if not answers:
        raise DataError(f"{path}: answers none of the questions; name the questions that belong to it")
    declared = {
        "version": VERSION,
        "file_hash": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        "data_hash": data_hash(questions),
    }
    return AgentTask(name or slug(found.models[0] or path.stem), None, True, declared, answers, len(questions))


def _judge_tasks(
    judge: JudgeSpec,
    section: MTBenchSection,
    agents: list[AgentTask],
    questions: list[Question],
    prompts: PromptSet,
    revisions: Revisions,
) -> list[JudgeTask]:
    located, error = _locate(judge, revisions)
    turns = sum(len(question.turns) for question in questions)
    tasks = []
    for mode in section.modes:
        declared = _declared_model(judge, located) | {
            "mode": mode,
            "prompts_hash": prompts.hash,
            "reference_categories": list(section.reference_categories),
            "max_new_tokens": judge.max_new_tokens,
            "temperature": judge.temperature,
            "seed": section.seed,
            "data_hash": data_hash(questions),
        }
        groups: Iterable[tuple[AgentTask, ...]] = ((agent,) for agent in agents)
        if mode == "pairwise":
            groups = (pair for pair in combinations(agents, 2) if _is_wanted(pair, section.baseline))
        tasks += [JudgeTask(judge, mode, tuple(group), declared, turns, error) for group in groups]
    return tasks


def _is_wanted(pair: tuple[AgentTask, ...], baseline: str | None) -> bool:
    return baseline is None or baseline in (agent.name for agent in pair)


def _declared_model(spec: ModelSpec, located: Located | None) -> dict[str, Any]:
    return {
        "version": VERSION,
        "model": spec.id,
        "revision": located.revision if located else None,
        "endpoint": spec.endpoint,
        "device_asked": spec.device,
        "dtype_asked": spec.dtype,
        "quantization_asked": spec.quantization,
        **settings_of(spec, located),
        "thinking_asked": spec.thinking,
    }


def _locate(spec: ModelSpec, revisions: Revisions) -> tuple[Located | None, str | None]:
    """Where the model is and at which commit, or why it cannot be found."""
    if spec.endpoint:
        return None, None
    if isinstance(spec, JudgeSpec) and spec.is_rules:
        return Located(spec.id, f"rules {RULES_VERSION}", is_local=True), None
    return revisions.locate(spec)
