"""The converse job: scripted conversations with one model and one memory after another, a record per turn."""

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from llmjobs.calls.spending import Spending
from llmjobs.chat.agent import Agent, Reply
from llmjobs.chat.backend import MessageTooLongError, Sampling
from llmjobs.chat.open_backend import OpenBackend, UnitBackends
from llmjobs.clocks import DeviceClock, measured
from llmjobs.converse.conversations import Script, Turn
from llmjobs.converse.summary import record_printer, render_summary, summarize
from llmjobs.converse.tasks import ConverseTask, converse_section, make_tasks, turn_asked, with_limit
from llmjobs.engines.registry import devices
from llmjobs.errors import AnswerError, CallError, ContextFullError, LlmjobsError
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.records import TurnOutcome, TurnRecord
from llmjobs.run_study import run_study
from llmjobs.work.call_journal import spent_calls
from llmjobs.work.folder import Revisions, RunFolder, run_date
from llmjobs.work.outcome import Outcome
from llmjobs.work.run import OnRecords
from llmjobs.work.unit_progress import progress_of
from llmjobs.work.units import Saved, Step, Unit, Work

# The converse job as the runner sees it: a conversation a step, a record a turn.

FOLDER = "converse"


class ConverseJob:
    """Scripted conversations of every model with every memory of a study."""

    name = FOLDER

    def __init__(self, study: Manifest, folder: RunFolder) -> None:
        """Nothing is read before :meth:`units`."""
        self.study, self.folder = study, folder
        self.section = converse_section(study)
        self.tasks: dict[str, ConverseTask] = {}
        self.spending = Spending({})
        """Calls to endpoints and their tokens, including those of earlier attempts. There is no limit."""
        self._backends = UnitBackends(
            folder, self.spending, threads=self.section.threads, timeout_s=self.section.timeout_s
        )

    def for_worker(self) -> "ConverseJob":
        """A copy without a loaded model, to be sent to another machine."""
        other = copy.copy(self)
        other._backends = self._backends.for_worker()
        del other.spending  # units that ask an endpoint stay with the command
        return other

    def units(self) -> Sequence[Unit]:
        """One unit for each model, set and memory, model by model."""
        self._backends.date = run_date(self.study, self.folder)
        self.tasks = {task.path: task for task in make_tasks(self.study, Revisions.of(self.folder))}
        self.spending.book_past(spent_calls(self.folder.path / FOLDER))
        return [task.unit() for task in self.tasks.values()]

    @contextmanager
    def open(self, unit: Unit, saved: Saved | None) -> Iterator[Work]:
        """Load the unit's model if it is not loaded yet."""
        task = self.tasks[unit.path]
        if task.error:
            raise LlmjobsError(task.error)
        with self._backends.open(task.model, task.path) as (backend, opening):
            yield ConverseWork(task, backend, opening)

    def close(self) -> None:
        """Free the model."""
        self._backends.close()

    def models(self) -> Mapping[str, ModelSpec]:
        """Models by name."""
        return {model.name: model for model in self.study.models}

    @property
    def threads(self) -> int | str:
        """Of the manifest's section."""
        return self.section.threads

    def printer(self) -> OnRecords:
        """Print the conversations with every answer."""
        return record_printer(click.echo)

    def summarize(self, outcome: Outcome) -> tuple[Mapping[str, Any], str]:
        """Right answers by model, memory and distance."""
        part = summarize(self.folder, list(self.tasks.values()), outcome, self.spending)
        outcome.in_error = sum(memory["errors"] for group in part["models"] for memory in group["memories"])
        return part, render_summary(part)


@dataclass
class ConverseWork:
    """An open unit: its conversations, each of which starts with an empty history."""

    task: ConverseTask
    backend: OpenBackend
    opening: Mapping[str, Any]
    _answers: Mapping[str, Any] = field(init=False)
    _clock: DeviceClock | None = field(init=False)

    def __post_init__(self) -> None:
        """Ask what answers, and take the clock of the model's device."""
        answering = self.backend("effective")
        self._answers, self._clock = answering.effective, answering.clock()

    @property
    def effective(self) -> Mapping[str, Any]:
        """The settings of the loaded model, and the order of the conversations."""
        order = repr([script.id for script in self.task.scripts])
        return {**self._answers, "steps": {"order": hashlib.sha256(order.encode()).hexdigest()[:16]}}

    @property
    def steps(self) -> int:
        """One a conversation."""
        return len(self.task.scripts)

    def state(self) -> Mapping[str, Any]:
        """Nothing: a conversation begins with its own seed and an empty cache."""
        return {}

    def step(self, index: int) -> Step:
        """Run one conversation.

        Raises:
            CallError: the endpoint gave no answer; the unit resumes here in the next run.

        """
        script = self.task.scripts[index]
        with measured(self._clock) as span:
            conversation = _Conversation(self.task, script, self._agent(script, index))
            for turn in range(len(script.turns)):
                conversation.ask(turn)
        timing = {"items": len(script.turns), "turns": conversation.times, **span.to_record()}
        return Step(conversation.records, timing)

    def _agent(self, script: Script, index: int) -> Agent:
        task, section = self.task, self.task.section
        return Agent(
            self.backend(script.id),
            system=task.model.system or script.system,
            strategy=task.memory.strategy,
            history=task.memory.history,
            max_context=task.memory.context,
            sampling=Sampling(
                section.max_new_tokens,
                section.temperature,
                section.top_p,
                thinking_tokens=task.model.thinking_tokens,
            ),
            seed=section.seed + index,
            may_be_empty=True,
        )


@dataclass
class _Conversation:
    """A conversation in progress: its records and times so far."""

    task: ConverseTask
    script: Script
    agent: Agent
    records: list[TurnRecord] = field(default_factory=list)
    times: list[dict[str, Any]] = field(default_factory=list)
    broken: str | None = None
    """Why the remaining turns are not asked: after a turn without an answer, their history is incomplete."""

    def ask(self, turn: int) -> None:
        """Ask one turn and check the answer."""
        message = self.script.turns[turn]
        if self.broken is not None:
            self._add(turn, _failed(message, self.broken))
            return
        try:
            reply = self.agent.ask(message.text)
        except CallError:
            raise  # a failed call is no result: the unit ends here, and the next run asks again
        except (AnswerError, ContextFullError, MessageTooLongError) as error:
            self._fail(turn, error)
        else:
            self._add(turn, _answered(message, reply))
            figures = {"ttft_s": round(reply.ttft_s, 6), "real_s": round(reply.real_s, 6)}
            self.times.append({"turn": turn + 1, **figures, "reused_tokens": reply.reused_tokens})

    def _fail(self, turn: int, error: LlmjobsError) -> None:
        self._add(turn, _failed(self.script.turns[turn], str(error)))
        self.broken = f"not asked: turn {turn + 1} has no answer"

    def _add(self, turn: int, outcome: TurnOutcome) -> None:
        self.records.append({**turn_asked(self.task, self.script, turn), **outcome})


def _answered(message: Turn, reply: Reply) -> TurnOutcome:
    outcome: TurnOutcome = {
        "answer": reply.text,
        "expected": message.expected,
        "correct": message.is_right(reply.text) if message.expected is not None else None,
        "status": "ok",
        "tokens_sent": reply.prompt_tokens,
        "tokens_dropped": reply.dropped_tokens,
        "tokens_side": reply.side_tokens,
        "tokens_new": reply.new_tokens,
        "tokens_counted": reply.counted,
        "finish_reason": reply.finish_reason,
    }
    if reply.thinking is not None:
        outcome["thinking"] = reply.thinking
        outcome["thinking_tokens"] = reply.thinking_tokens
        if reply.thinking_cut:
            outcome["thinking_cut"] = True
    return outcome


def _failed(message: Turn, why: str) -> TurnOutcome:
    return {
        "answer": None,
        "expected": message.expected,
        "correct": None,
        "status": "error",
        "tokens_sent": None,
        "tokens_dropped": None,
        "tokens_side": None,
        "tokens_new": None,
        "tokens_counted": None,
        "finish_reason": None,
        "error": why,
    }


# The converse job from a manifest to a summary.

__all__ = ["dry_run", "run", "with_limit"]


def run(study: Manifest, results: Path, *, fresh: bool = False, show: bool = False, ray: str | None = None) -> Outcome:
    """Run or resume the converse job of ``study`` below ``results``, on ``ray`` if given, and print the summary.

    Raises:
        LlmjobsError: one line; nothing that was saved is lost.

    """
    return run_study(
        lambda study, folder, _: ConverseJob(study, folder),
        study,
        results,
        fresh=fresh,
        show=show,
        ray=ray,
        devices=devices(study.models),
    )


def dry_run(study: Manifest, results: Path) -> str:
    """Print what would run and what is done already, without loading a model or writing anything."""
    folder = RunFolder(results / study.name)
    run_date(study, folder, writes=False)
    lines = []
    for task in make_tasks(study, Revisions.of(folder, writes=False)):
        state = task.error or progress_of(folder, task.path, task.unit().declared)
        lines.append(f"{task.model.name}  {task.set_name}  {task.memory}  {task.unit().size} turns  {state}")
    return "\n".join(lines)
