"""The mtbench job as the runner sees it: answers first, then judgments; a question or a judgment a step."""

import copy
import datetime
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from llmjobs.chat.backend import Backend
from llmjobs.chat.endpoint import WholeAnswers
from llmjobs.chat.parameters import Parameters
from llmjobs.clocks import measured
from llmjobs.errors import DataError, LlmjobsError
from llmjobs.jobs.chat_backend import open_backend
from llmjobs.jobs.mtbench_retry import ask_again
from llmjobs.jobs.mtbench_tasks import FOLDER, AgentTask, Bench, JudgeTask, make_bench, mtbench_section
from llmjobs.jobs.mtbench_work import AnswerWork, ImportedWork, JudgeWork, OpenBackend, RuleJudgeWork
from llmjobs.jobs.revisions import Revisions
from llmjobs.jobs.run_date import run_date
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.manifest.mtbench_section import EndpointLimits, JudgeSpec, Price
from llmjobs.mtbench.calls import CallJournal, spent_calls
from llmjobs.mtbench.limits import MinuteLimit, Rate, Spending
from llmjobs.mtbench.paid_backend import PaidBackend
from llmjobs.process_memory import WATCH
from llmjobs.runfolder.folder import RECORDS, RunFolder
from llmjobs.runfolder.journal import Record, read_records
from llmjobs.runner import cursor as cursors
from llmjobs.runner.units import Saved, Unit, Work


class MTBenchJob:
    """Agents' answers and judges' ratings of a study."""

    name = FOLDER

    def __init__(self, study: Manifest, folder: RunFolder) -> None:
        """Nothing is read before :meth:`units`."""
        self.study, self.folder = study, folder
        self.section = mtbench_section(study)
        self.bench: Bench | None = None
        self.spending = make_spending(study)
        self._minutes: dict[str, MinuteLimit] = {}
        self._parameters: dict[tuple[str, str], Parameters] = {}
        self._loaded: tuple[ModelSpec, Backend] | None = None
        self._failed: dict[ModelSpec, LlmjobsError] = {}
        self._load_s: float | None = None
        self._date: datetime.date | None = None

    def for_worker(self) -> "MTBenchJob":
        """A copy with no model loaded, for another machine; money is counted in the command's process alone."""
        other = copy.copy(self)
        other._loaded, other._failed, other._minutes, other._parameters = None, {}, {}, {}
        del other.spending
        return other

    def units(self) -> Sequence[Unit]:
        """Every agent's answers, then every judge's judgments."""
        self._date = run_date(self.study, self.folder)
        self.bench = make_bench(self.study, Revisions.of(self.folder))
        ask_again(self.folder, self.bench)
        self.spending.book_past(spent_calls(self.folder.path / FOLDER))
        return [task.unit() for task in self.bench.tasks.values()]

    @contextmanager
    def open(self, unit: Unit, saved: Saved | None) -> Iterator[Work]:
        """Make ready what answers, a local model loaded only where it is not there yet."""
        assert self.bench is not None
        task = self.bench.tasks[unit.path]
        if task.error:
            raise LlmjobsError(task.error)
        with ExitStack() as stack:
            yield self._agent(task, stack) if isinstance(task, AgentTask) else self._judge(task, stack)

    def close(self) -> None:
        """Free the model."""
        if self._loaded:
            self._loaded[1].close()
            self._loaded = None
            WATCH.end()

    def _agent(self, task: AgentTask, stack: ExitStack) -> Work:
        assert self.bench is not None
        if task.spec is None:
            return ImportedWork(self.bench, task)
        limits = self.section.endpoints.get(task.spec.name, EndpointLimits())
        backend, opening = self._opener(task.spec, task.spec.name, limits, task.path, stack)
        work = AnswerWork(self.bench, task, backend, opening, limits.concurrency if task.spec.endpoint else 1)
        stack.callback(work.close)
        return work

    def _judge(self, task: JudgeTask, stack: ExitStack) -> Work:
        assert self.bench is not None
        answers = [whole_answers(self.folder, agent) for agent in task.agents]
        judge = task.judge
        if judge.is_rules:
            return RuleJudgeWork(self.bench, task, answers)
        backend, opening = self._opener(judge, account(judge), judge, task.path, stack)
        work = JudgeWork(self.bench, task, answers, backend, opening, judge.concurrency if judge.endpoint else 1)
        stack.callback(work.close)
        return work

    def _opener(
        self, spec: ModelSpec, name: str, limits: EndpointLimits | JudgeSpec, path: str, stack: ExitStack
    ) -> tuple[OpenBackend, Mapping[str, Any]]:
        """What gives each conversation its backend: the one local model, or a paid call's own."""
        if not spec.endpoint:
            with measured() as span:
                local = self._model(spec)
            load_s, self._load_s = self._load_s, None
            return (lambda label: local), {**span.to_record(), "load_s": load_s, "items": 0}
        open_backend(spec, timeout_s=self.section.timeout_s).close()
        journal = CallJournal(self.folder.path / path)
        stack.callback(journal.close)
        minute = self._minutes.setdefault(name, MinuteLimit(limits.requests_per_minute, limits.tokens_per_minute))

        parameters = self._parameters.setdefault((str(spec.endpoint), spec.id), Parameters())

        def paid(label: str) -> Backend:
            def endpoint(whole: WholeAnswers) -> Backend:
                return open_backend(spec, timeout_s=self.section.timeout_s, parameters=parameters, whole=whole)

            return PaidBackend(
                endpoint,
                label,
                journal,
                account=name,
                spending=self.spending,
                minute=minute,
                changes=parameters.changes,
            )

        return paid, {"items": 0, "load_s": None}

    def _model(self, spec: ModelSpec) -> Backend:
        plain = ModelSpec.model_validate(spec.model_dump(include=set(ModelSpec.model_fields)))
        same = plain.model_copy(update={"name": "model"})
        if self._loaded and self._loaded[0] == same:
            return self._loaded[1]
        self.close()
        if same in self._failed:
            raise self._failed[same]
        try:
            WATCH.begin()
            with measured() as span:
                backend = open_backend(
                    plain, threads=self.section.threads, timeout_s=self.section.timeout_s, date=self._date
                )
        except LlmjobsError as error:
            self._failed[same] = error
            raise
        self._load_s = round(span.real_s, 6)
        self._loaded = (same, backend)
        return backend


def account(judge: JudgeSpec) -> str:
    """The name under which a judge's calls are booked; an agent may have the same name."""
    return f"judge {judge.name}"


def make_spending(study: Manifest) -> Spending:
    """Prices and limits of a study, nothing spent yet."""
    section = mtbench_section(study)
    prices: dict[str, Price | None] = {account(judge): judge.price for judge in section.judges}
    prices |= {name: limits.price for name, limits in section.endpoints.items()}
    rates = {name: Rate(price.prompt, price.completion) for name, price in prices.items() if price}
    limit = section.spending
    return Spending(rates, tokens=limit.tokens, cost=limit.cost, currency=section.currency)


def whole_answers(folder: RunFolder, agent: AgentTask) -> list[Record]:
    """An agent's answer records.

    Raises:
        DataError: they are not whole yet.

    """
    path: Path = folder.path / agent.path / RECORDS
    if not path.exists() or not cursors.load(folder.unit(agent.path), agent.declared)[0].done:
        raise DataError(f"{agent.name}: its answers are not whole; what failed there has to be mended first")
    return read_records(path)
