"""The mtbench job: answers first, then judgments; what a run would do and cost; FastChat's files."""

import copy
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import click

from llmjobs.calls.client import Lookahead
from llmjobs.calls.spending import BYTES_A_TOKEN, Rate, Spending
from llmjobs.chat.agent import Agent, Reply
from llmjobs.chat.backend import MessageTooLongError, Sampling
from llmjobs.chat.open_backend import OpenBackend, UnitBackends
from llmjobs.clocks import DeviceClock, measured
from llmjobs.engines.registry import devices
from llmjobs.errors import AnswerError, CallError, ContextFullError, DataError, LlmjobsError, UnavailableError
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.manifest.endpoint_limits import EndpointLimits, Price
from llmjobs.manifest.mtbench import JudgeSpec
from llmjobs.mtbench.ask_again import FAILED_IN_A_ROW, ask_again, failed_call, failed_calls, what_failed
from llmjobs.mtbench.fastchat import answer_lines, pair_lines, single_lines
from llmjobs.mtbench.judging import EFFECTIVE as RULES
from llmjobs.mtbench.judging import JudgeAnswer, JudgeConversation, RuleJudge, judge_pair, judge_single
from llmjobs.mtbench.questions import Question, temperature_of
from llmjobs.mtbench.summary import collect, record_printer, render_summary, summarize
from llmjobs.mtbench.tasks import FOLDER, AgentTask, Bench, JudgeTask, make_bench, mtbench_section, with_limit
from llmjobs.records import AnswerRecord, Judgment, as_records
from llmjobs.run_study import run_study
from llmjobs.work import unit_progress
from llmjobs.work.call_journal import spent_calls
from llmjobs.work.folder import ERROR_FILE, RECORDS, Revisions, RunFolder, run_date
from llmjobs.work.journal import Record, encode, read_records
from llmjobs.work.outcome import Outcome
from llmjobs.work.run import OnRecords
from llmjobs.work.unit_progress import progress_of
from llmjobs.work.units import Saved, Step, Unit, Work

# An agent's turns that failed are recorded as errors and are never judged.


class Recorder(Protocol):
    """Makes the records of one unit: an agent's answers, or a judge's judgments."""

    @property
    def count(self) -> int:
        """Number of the unit's records."""

    @property
    def steps(self) -> Mapping[str, Any]:
        """What decides the order and content of the steps, for the fingerprint."""

    def record(self, index: int) -> tuple[AnswerRecord | Judgment, dict[str, Any]]:
        """Make record ``index``; return it with its measurements.

        Raises:
            UnavailableError: the endpoint cannot be used; the unit resumes here in the next run.
            SpendingLimitError: the next call could exceed the limit.

        """


class RecorderWork:
    """An open unit with one record per step. Records of an endpoint may be computed ahead."""

    def __init__(
        self,
        recorder: Recorder,
        effective: Mapping[str, Any],
        opening: Mapping[str, Any],
        *,
        clock: DeviceClock | None = None,
        workers: int = 1,
        is_endpoint: bool = False,
    ) -> None:
        """``effective`` describes what answers, ``clock`` times its device; ``workers`` records are made at once."""
        self.steps, self.opening, self._recorder = recorder.count, opening, recorder
        self.effective = {**effective, **recorder.steps}
        self._is_endpoint, self._failed_in_a_row = is_endpoint, 0
        self._clock = clock if workers == 1 else None
        self._ahead: Lookahead[tuple[AnswerRecord | Judgment, dict[str, Any]]]
        self._ahead = Lookahead(self._measured, self.steps, workers)

    def state(self) -> Mapping[str, Any]:
        """Nothing to keep, since every step starts a new conversation."""
        return {}

    def step(self, index: int) -> Step:
        """Take one record.

        Raises:
            UnavailableError: the endpoint cannot be used; the unit resumes here in the next run.
            SpendingLimitError: the next call could exceed the limit.

        """
        record, timing = self._ahead.result(index)
        why = failed_call(record) if self._is_endpoint else None
        self._failed_in_a_row = self._failed_in_a_row + 1 if why else 0
        if self._failed_in_a_row >= FAILED_IN_A_ROW:
            raise UnavailableError(f"{FAILED_IN_A_ROW} questions in a row had no answer; the last error: {why}")
        return Step([record], timing)

    def close(self) -> None:
        """Wait for the calls in flight, because they are paid for."""
        self._ahead.close()

    def _measured(self, index: int) -> tuple[AnswerRecord | Judgment, dict[str, Any]]:
        with measured(self._clock) as span:
            record, figures = self._recorder.record(index)
        return record, {"items": 1, **figures, **span.to_record()}


@dataclass(frozen=True)
class Answers:
    """A model's two-turn answers through the chat agent, one question per record."""

    bench: Bench
    task: AgentTask
    backend: OpenBackend

    @property
    def count(self) -> int:
        """One per question."""
        return len(self.bench.questions)

    @property
    def steps(self) -> Mapping[str, Any]:
        """The order of the questions."""
        return {"steps": _order([question.id for question in self.bench.questions])}

    def record(self, index: int) -> tuple[AnswerRecord, dict[str, Any]]:
        """Ask one question's turns; a turn after a failed one is not asked."""
        question = self.bench.questions[index]
        agent = self._agent(question, index)
        replies: list[Reply] = []
        error, is_final = None, False
        for text in question.turns:
            try:
                replies.append(agent.ask(text))
            except UnavailableError:
                raise
            except (AnswerError, ContextFullError, MessageTooLongError) as failure:
                error = f"turn {len(replies) + 1}: {failure}"
                is_final = not isinstance(failure, CallError)
                break
        record = _answered(self.task.name, question, replies, error, is_final)
        record["temperature"], record["seed"] = agent.sampling.temperature, agent.seed
        record["history"], record["strategy"] = agent.history, agent.strategy
        figures = {"ttft_s": [round(r.ttft_s, 6) for r in replies], "turn_s": [round(r.real_s, 6) for r in replies]}
        return record, figures

    def _agent(self, question: Question, index: int) -> Agent:
        section, spec = self.bench.section, self.task.spec
        assert isinstance(spec, ModelSpec)
        return Agent(
            self.backend(question.id),
            system=spec.system or section.system,
            strategy=section.strategy,
            history=self.task.history,
            max_context=section.max_context,
            sampling=Sampling(
                section.max_new_tokens,
                temperature_of(question.category, section.temperatures),
                section.top_p,
                thinking_tokens=spec.thinking_tokens,
            ),
            seed=section.seed + index,
            may_be_empty=True,
        )


def _order(items: Sequence[object]) -> dict[str, str]:
    """The items of the steps in order, for the fingerprint."""
    return {"order": hashlib.sha256(repr(list(items)).encode()).hexdigest()[:16]}


def _answered(
    name: str, question: Question, replies: Sequence[Reply], error: str | None, is_final: bool
) -> AnswerRecord:
    record: AnswerRecord = {
        "model": name,
        "question_id": question.id,
        "category": question.category,
        "questions": list(question.turns),
        "turns": [reply.text for reply in replies],
        "status": "error" if error else "ok",
    }
    if error:
        record["error"] = error
    if is_final:
        record["final"] = True
    record["tokens_sent"] = [reply.prompt_tokens for reply in replies]
    record["tokens_dropped"] = [reply.dropped_tokens for reply in replies]
    record["tokens_side"] = [reply.side_tokens for reply in replies]
    record["tokens_new"] = [reply.new_tokens for reply in replies]
    record["tokens_counted"] = [reply.counted for reply in replies]
    record["finish_reasons"] = [reply.finish_reason for reply in replies]
    if any(reply.thinking is not None for reply in replies):
        record["thinking"] = [reply.thinking for reply in replies]
        record["thinking_tokens"] = [reply.thinking_tokens for reply in replies]
    if any(reply.thinking_cut for reply in replies):
        record["thinking_cut"] = [reply.thinking_cut for reply in replies]
    return record


@dataclass(frozen=True)
class ImportedAnswers:
    """Imported answers as records, in the same form as generated ones."""

    bench: Bench
    task: AgentTask
    steps: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """One per question."""
        return len(self.bench.questions)

    def record(self, index: int) -> tuple[AnswerRecord, dict[str, Any]]:
        """Return one answer of the file; a question that it lacks, or answers in fewer turns, is an error."""
        question = self.bench.questions[index]
        answer = self.task.imported.get(question.id)
        error = "the file has no answer to this question" if answer is None else answer.error
        turns = list(answer.turns[: len(question.turns)]) if answer and not error else []
        if not error and len(turns) < len(question.turns):
            error = f"turn {len(turns) + 1}: the file has none"
        record: AnswerRecord = {
            "model": self.task.name,
            "question_id": question.id,
            "category": question.category,
            "questions": list(question.turns),
            "turns": turns,
            "status": "error" if error else "ok",
        }
        if error:
            record["error"] = error
        record["imported"] = True
        return record, {}


class Judgments:
    """One judge's judgments of one agent, or of two side by side."""

    def __init__(
        self, bench: Bench, task: JudgeTask, answers: Sequence[Sequence[AnswerRecord]], backend: OpenBackend | None
    ) -> None:
        """One judgment per record; ``answers`` are each agent's records. Without ``backend``, a rule-based judge."""
        self.bench, self.task, self._backend = bench, task, backend
        self._turns = bench.turns()
        self._answers = [{record["question_id"]: record for record in part} for part in answers]
        text = b"".join(encode({"q": r["question_id"], "t": r["turns"]}) for part in answers for r in part)
        self.steps = {
            "steps": _order([(question.id, turn) for question, turn in self._turns]),
            "answers": hashlib.sha256(text).hexdigest()[:16],
        }

    @property
    def count(self) -> int:
        """One per turn of each question."""
        return len(self._turns)

    def record(self, index: int) -> tuple[Judgment, dict[str, Any]]:
        """Judge one turn of one question; an answer that failed is not judged."""
        question, turn = self._turns[index]
        open_judge = partial(self._open_judge, question, turn)
        answers = [part[question.id] for part in self._answers]
        missing = [answer["model"] for answer in answers if len(answer["turns"]) < turn]
        guided = self.bench.has_reference(question, turn)
        prompts = self.bench.prompts
        if missing:
            judged = _not_judged(self.task.mode, f"{' and '.join(missing)}: no answer to judge")
        elif self.task.mode == "single":
            judged = judge_single(
                prompts, question, answers[0]["turns"], turn, with_reference=guided, open_judge=open_judge
            )
        else:
            first, second = (answer["turns"] for answer in answers)
            judged = judge_pair(prompts, question, first, second, turn, with_reference=guided, open_judge=open_judge)
        return cast(Judgment, self._head(question, turn) | judged), {}

    def _head(self, question: Question, turn: int) -> Record:
        names = [agent.name for agent in self.task.agents]
        who = {"model": names[0]} if self.task.mode == "single" else {"first": names[0], "second": names[1]}
        place = {"question_id": question.id, "category": question.category, "turn": turn}
        return {"judge": self.task.judge.name, "mode": self.task.mode, **who, **place}

    def _open_judge(self, question: Question, turn: int, system: str, label: str) -> JudgeConversation:
        judge = self.task.judge
        if self._backend is None:
            turns = [part[question.id]["turns"][turn - 1] for part in self._answers]
            return RuleJudge(question, turn, turns[::-1] if label.endswith("order2") else turns)
        sampling = Sampling(judge.max_new_tokens, judge.temperature, thinking_tokens=judge.thinking_tokens)
        seed = self.bench.section.seed
        agent = Agent(self._backend(label), system=system.strip() or None, sampling=sampling, seed=seed)
        agent.may_be_empty = True
        return AgentJudge(agent)


def _not_judged(mode: str, why: str) -> Record:
    pair: Record = {"winner": None, "flipped": None, "orders": []}
    nothing: Record = {"rating": None, "judgment": None} if mode == "single" else pair
    return {"prompt": None, **nothing, "status": "not_judged", "why": why}


@dataclass
class AgentJudge:
    """A judge's conversation, held by the chat agent."""

    agent: Agent

    def ask(self, text: str) -> JudgeAnswer:
        """Ask, with everything said before; a reply without text is not kept in the conversation."""
        reply = self.agent.ask(text)
        if not reply.text:
            self.agent.undo()
        counts = (reply.prompt_tokens, reply.new_tokens, reply.counted)
        return JudgeAnswer(reply.text, *counts, thinking=reply.thinking, thinking_cut=reply.thinking_cut)


class MTBenchJob:
    """Agents' answers and judges' ratings of a study."""

    name = FOLDER

    def __init__(self, study: Manifest, folder: RunFolder) -> None:
        """Nothing is read before :meth:`units`."""
        self.study, self.folder = study, folder
        self.section = mtbench_section(study)
        self.bench: Bench | None = None
        self.spending = make_spending(study)
        self._backends = UnitBackends(
            folder, self.spending, threads=self.section.threads, timeout_s=self.section.timeout_s
        )

    def for_worker(self) -> "MTBenchJob":
        """A copy without a loaded model, for another machine; spending is counted only in the main process."""
        other = copy.copy(self)
        other._backends = self._backends.for_worker()
        del other.spending
        return other

    def units(self) -> Sequence[Unit]:
        """Every agent's answers, then every judge's judgments."""
        self._backends.date = run_date(self.study, self.folder)
        self.bench = make_bench(self.study, Revisions.of(self.folder))
        ask_again(self.folder, self.bench)
        self.spending.book_past(spent_calls(self.folder.path / FOLDER))
        return [task.unit() for task in self.bench.tasks.values()]

    @contextmanager
    def open(self, unit: Unit, saved: Saved | None) -> Iterator[Work]:
        """Prepare the backend; a local model is loaded only if it is not loaded yet."""
        assert self.bench is not None
        task = self.bench.tasks[unit.path]
        if task.error:
            raise LlmjobsError(task.error)
        with ExitStack() as stack:
            yield self._agent(task, stack) if isinstance(task, AgentTask) else self._judge(task, stack)

    def close(self) -> None:
        """Free the model."""
        self._backends.close()

    def models(self) -> Mapping[str, ModelSpec]:
        """Agents and judges by the group of their units."""
        agents = {model.name: model for model in self.study.models}
        return agents | {account(judge): judge for judge in self.section.judges}

    @property
    def threads(self) -> int | str:
        """Of the manifest's section."""
        return self.section.threads

    def printer(self) -> OnRecords:
        """Print every answer and every judgment."""
        return record_printer(click.echo)

    def summarize(self, outcome: Outcome) -> tuple[Mapping[str, Any], str]:
        """Ratings and win rates; also writes FastChat's files."""
        assert self.bench is not None
        note_failed_calls(self.folder, self.bench, outcome)
        part = summarize(self.folder, self.bench, outcome, self.spending)
        outcome.in_error = in_error(part)
        write_fastchat(self.folder, self.bench)
        return part, render_summary(part)

    def _agent(self, task: AgentTask, stack: ExitStack) -> Work:
        assert self.bench is not None
        if task.spec is None:
            return RecorderWork(ImportedAnswers(self.bench, task), {"imported": True}, {"items": 0})
        limits = self.section.endpoints.get(task.spec.name, EndpointLimits())
        backend, opening = self._open_backend(task.spec, task.spec.name, limits, task.path, stack)
        return _ahead(Answers(self.bench, task, backend), task, backend, opening, limits.concurrency, stack)

    def _judge(self, task: JudgeTask, stack: ExitStack) -> Work:
        assert self.bench is not None
        answers = [whole_answers(self.folder, agent) for agent in task.agents]
        judge = task.judge
        if judge.is_rules:
            return RecorderWork(Judgments(self.bench, task, answers, None), RULES, {"items": 0, "load_s": None})
        backend, opening = self._open_backend(judge, account(judge), judge, task.path, stack)
        judgments = Judgments(self.bench, task, answers, backend)
        return _ahead(judgments, task, backend, opening, judge.concurrency, stack)

    def _open_backend(
        self, spec: ModelSpec, name: str, limits: EndpointLimits | JudgeSpec, path: str, stack: ExitStack
    ) -> tuple[OpenBackend, Mapping[str, Any]]:
        opened = self._backends.open(
            spec,
            path,
            account=name,
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
        )
        return stack.enter_context(opened)


def _ahead(
    recorder: Recorder,
    task: AgentTask | JudgeTask,
    backend: OpenBackend,
    opening: Mapping[str, Any],
    concurrency: int,
    stack: ExitStack,
) -> RecorderWork:
    """Open a unit of a model; with an endpoint, up to ``concurrency`` records are computed at the same time."""
    paid = task.is_endpoint
    workers = concurrency if paid else 1
    answering = backend("effective")
    work = RecorderWork(
        recorder, answering.effective, opening, clock=answering.clock(), workers=workers, is_endpoint=paid
    )
    stack.callback(work.close)
    return work


def account(judge: JudgeSpec) -> str:
    """The name under which a judge's calls are booked, because an agent may have the same name."""
    return f"judge {judge.name}"


def make_spending(study: Manifest) -> Spending:
    """Return the prices and limits of a study, with nothing spent yet."""
    section = mtbench_section(study)
    prices: dict[str, Price | None] = {account(judge): judge.price for judge in section.judges}
    prices |= {name: limits.price for name, limits in section.endpoints.items()}
    rates = {name: Rate(price.prompt, price.completion) for name, price in prices.items() if price}
    limit = section.spending
    return Spending(rates, tokens=limit.tokens, cost=limit.cost, currency=section.currency)


def whole_answers(folder: RunFolder, agent: AgentTask) -> list[AnswerRecord]:
    """An agent's answer records.

    Raises:
        DataError: some are missing.

    """
    path: Path = folder.path / agent.path / RECORDS
    if not path.exists() or not unit_progress.load(folder.unit(agent.path), agent.declared)[0].done:
        raise DataError(
            f"{agent.name}: some of its answers are missing; "
            "fix the errors listed for it, then run the same command again"
        )
    return as_records(read_records(path), AnswerRecord)


# What an mtbench run would do and cost, before any call: calls, tokens, price.

Figures = dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """Numbers of calls and estimated tokens."""

    calls: int
    prompt_tokens: int
    new_tokens: int


def plan(study: Manifest, folder: RunFolder) -> list[Figures]:
    """One row per unit: whether it is done, and its estimated tokens and cost (None without a price)."""
    bench = make_bench(study, Revisions.of(folder, writes=False))
    rates = make_spending(study).rates
    rows = []
    for path, task in bench.tasks.items():
        estimate = _answers(bench, task) if isinstance(task, AgentTask) else _judgments(bench, task)
        rate = rates.get(task.name if isinstance(task, AgentTask) else account(task.judge))
        rows.append(
            {
                "unit": path,
                "state": task.error or _state(folder, path, task),
                "endpoint": task.is_endpoint,
                "calls": estimate.calls,
                "prompt_tokens": estimate.prompt_tokens,
                "new_tokens": estimate.new_tokens,
                "cost": _cost(rate, estimate),
            }
        )
    return rows


def render_plan(study: Manifest, rows: list[Figures]) -> str:
    """The plan for the terminal: one line per unit, then the total for the endpoints."""
    assert study.mtbench is not None
    currency = study.mtbench.currency
    lines = [_line(row, currency) for row in rows]
    paid = [row for row in rows if row["endpoint"]]
    if paid:
        tokens = sum(row["prompt_tokens"] + row["new_tokens"] for row in paid)
        known = [row["cost"] for row in paid if row["cost"] is not None]
        cost = f", {sum(known):.2f} {currency}" if known else ""
        without = ", plus calls without a price" if known and len(known) < len(paid) else ""
        calls = sum(row["calls"] for row in paid)
        lines.append(f"endpoints together: {calls:,} calls, about {tokens:,} tokens{cost}{without}")
    return "\n".join(lines)


def _state(folder: RunFolder, path: str, task: AgentTask | JudgeTask) -> str:
    failed = len(failed_calls(folder, task))
    return progress_of(folder, path, task.declared) + (f", {failed} failed, to be sent again" if failed else "")


def _line(row: Mapping[str, Any], currency: str) -> str:
    if not row["calls"]:
        return f"{row['unit']}  read from a file  {row['state']}"
    cost = f", {row['cost']:.2f} {currency}" if row["cost"] is not None else ""
    tokens = row["prompt_tokens"] + row["new_tokens"]
    return f"{row['unit']}  {row['calls']:,} calls, about {tokens:,} tokens{cost}  {row['state']}"


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / BYTES_A_TOKEN)


def _answers(bench: Bench, task: AgentTask) -> Estimate:
    if task.spec is None:
        return Estimate(0, 0, 0)
    longest, prompt = bench.section.max_new_tokens, 0
    for question in bench.questions:
        sent = 0
        for turn, text in enumerate(question.turns):
            sent += _tokens(text) + (longest if turn and task.history else 0)
            prompt += sent if task.history else _tokens(text)
    calls = sum(len(question.turns) for question in bench.questions)
    return Estimate(calls, prompt, calls * (longest + task.spec.thinking_tokens))


def _judgments(bench: Bench, task: JudgeTask) -> Estimate:
    orders, sides = (1, 1) if task.mode == "single" else (2, 2)
    prompt = calls = 0
    for question, turn in bench.turns():
        chosen = bench.prompts.choose(task.mode, with_reference=bench.has_reference(question, turn), turn=turn)
        shown = [*question.turns[:turn], *(question.reference or ())[:turn], chosen.system, chosen.template]
        answers = sides * turn * bench.section.max_new_tokens
        prompt += orders * (sum(map(_tokens, shown)) + answers)
        calls += orders
    return Estimate(calls, prompt, calls * (task.judge.max_new_tokens + task.judge.thinking_tokens))


def _cost(rate: Rate | None, estimate: Estimate) -> float | None:
    return round(rate.cost(estimate.prompt_tokens, estimate.new_tokens), 4) if rate else None


__all__ = ["dry_run", "run", "with_limit"]


def run(study: Manifest, results: Path, *, fresh: bool = False, show: bool = False, ray: str | None = None) -> Outcome:
    """Run or resume the mtbench job of ``study`` below ``results``, on ``ray`` if given, and print the summary.

    Raises:
        LlmjobsError: one line; nothing that was saved is lost.

    """
    return run_study(
        lambda study, folder, _: MTBenchJob(study, folder),
        study,
        results,
        fresh=fresh,
        show=show,
        ray=ray,
        devices=devices(study.models),
    )


def note_failed_calls(folder: RunFolder, bench: Bench, outcome: Outcome) -> None:
    """Count units with failed calls as failed: the reason is printed and stored, and the exit code is not 0."""
    for path, line in what_failed(folder, bench).items():
        if path not in outcome.failed:
            outcome.failed[path] = line
            RunFolder(folder.path / path).write_json(ERROR_FILE, {"unit": path, "error": line})


def in_error(part: Mapping[str, Any]) -> int:
    """Number of this run's answers and judgments that ended in an error; gaps in a file of answers do not count."""
    answers = sum(agent["errors"] for agent in part["agents"] if agent["kind"] != "imported")
    return int(answers + sum(judge["error"] for judge in part["judges"]))


def dry_run(study: Manifest, results: Path) -> str:
    """Say what would run, what is done already, and what it could cost; loads no model and writes nothing."""
    return render_plan(study, plan(study, RunFolder(results / study.name)))


def write_fastchat(folder: RunFolder, bench: Bench) -> None:
    """Write answers and judgments in FastChat's form below ``mtbench/fastchat``."""
    found = collect(folder, bench)
    files = {f"model_answer/{name}.jsonl": answer_lines(name, records) for name, records in found.answers.items()}
    writers = {"single": single_lines, "pairwise": pair_lines}
    for judge in bench.section.judges:
        for mode in bench.section.modes:
            tasks = [task for task in bench.judges if task.judge is judge and task.mode == mode]
            records = [record for task in tasks for record in found.judgments[task.path]]
            name = f"model_judgment/{judge.name}_{'single' if mode == 'single' else 'pair'}.jsonl"
            files[name] = writers[mode](records)
    for name, data in files.items():
        if data:
            folder.write_bytes(f"{FOLDER}/fastchat/{name}", data)
