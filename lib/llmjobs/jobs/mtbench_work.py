"""The opened units of the mtbench job. An agent's turns that failed are records in error and are never judged.

A record in error because a call failed is no result: the next run asks again (see ``mtbench_retry``).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llmjobs.chat.agent import Agent
from llmjobs.chat.answering import Reply
from llmjobs.chat.backend import Backend, Sampling
from llmjobs.chat.errors import AnswerError, CallError, ContextFullError, MessageTooLongError, UnavailableError
from llmjobs.clocks import measured
from llmjobs.jobs.mtbench_retry import failed_call, is_endpoint
from llmjobs.jobs.mtbench_tasks import AgentTask, Bench, JudgeTask
from llmjobs.manifest import ModelSpec
from llmjobs.models.device import DeviceClock
from llmjobs.mtbench.ahead import Ahead
from llmjobs.mtbench.judging import Said, Talk, judge_pair, judge_single
from llmjobs.mtbench.questions import Question, temperature_of
from llmjobs.mtbench.rule_judge import EFFECTIVE as RULES
from llmjobs.mtbench.rule_judge import RuleTalk
from llmjobs.runfolder.journal import encode
from llmjobs.runner.units import Record, Step

OpenBackend = Callable[[str], Backend]
"""A conversation's label → its backend."""
FAILED_IN_A_ROW = 3
"""So many questions without an answer, one after the other, end a unit: the server is not asked for the rest."""


class _AheadWork:
    """What the works share: steps that may be computed some ahead."""

    def __init__(
        self, count: int, workers: int, backend: OpenBackend | None, opening: Mapping[str, Any], *, is_endpoint: bool
    ) -> None:
        self.steps, self.opening, self._backend = count, opening, backend
        self._is_endpoint, self._failed_in_a_row = is_endpoint, 0
        self._ahead: Ahead[tuple[Record, dict[str, Any]]] = Ahead(self._measured, count, workers)
        self._effective = dict(backend("effective").effective if backend else RULES)
        self._clock = DeviceClock(str(self._effective.get("device", "cpu"))) if workers == 1 else None

    @property
    def effective(self) -> Mapping[str, Any]:
        """What really answers."""
        return self._effective

    def state(self) -> Mapping[str, Any]:
        """Nothing: every step begins a conversation of its own."""
        return {}

    def step(self, index: int) -> Step:
        """Take one record.

        Raises:
            UnavailableError: the endpoint cannot be used; the unit goes on here another time.
            SpendingLimitError: the next call could pass the limit.

        """
        record, timing = self._ahead.result(index)
        why = failed_call(record) if self._is_endpoint else None
        self._failed_in_a_row = self._failed_in_a_row + 1 if why else 0
        if self._failed_in_a_row >= FAILED_IN_A_ROW:
            raise UnavailableError(f"{FAILED_IN_A_ROW} questions in a row gave no answer, the last one: {why}")
        return Step([record], timing)

    def close(self) -> None:
        """Wait for the calls in flight: they are paid."""
        self._ahead.close()

    def _measured(self, index: int) -> tuple[Record, dict[str, Any]]:
        with measured(self._clock) as span:
            record, figures = self.record(index)
        return record, {"items": 1, **figures, **span.to_record()}

    def record(self, index: int) -> tuple[Record, dict[str, Any]]:
        """Record ``index``, and what was measured."""
        raise NotImplementedError


class AnswerWork(_AheadWork):
    """A model's two-turn answers through the chat agent."""

    def __init__(
        self, bench: Bench, task: AgentTask, backend: OpenBackend, opening: Mapping[str, Any], workers: int
    ) -> None:
        """A question a step."""
        self.bench, self.task = bench, task
        super().__init__(len(bench.questions), workers, backend, opening, is_endpoint=is_endpoint(task))
        self._effective["steps"] = _order([question.id for question in bench.questions])

    def record(self, index: int) -> tuple[Record, dict[str, Any]]:
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
        head = answer_head(self.task.name, question)
        settings = {"temperature": agent.sampling.temperature, "seed": agent.seed, "history": agent.history}
        figures = {"ttft_s": [round(r.ttft_s, 6) for r in replies], "turn_s": [round(r.real_s, 6) for r in replies]}
        return head | _answered(replies, error, is_final) | settings | {"strategy": agent.strategy}, figures

    def _agent(self, question: Question, index: int) -> Agent:
        section, spec = self.bench.section, self.task.spec
        assert isinstance(spec, ModelSpec) and self._backend is not None
        return Agent(
            self._backend(question.id),
            system=spec.system or section.system,
            strategy=section.strategy,
            history=self.task.history,
            max_context=section.max_context,
            sampling=Sampling(
                section.max_new_tokens + spec.thinking_tokens,
                temperature_of(question.category, section.temperatures),
                section.top_p,
            ),
            seed=section.seed + index,
        )


def _order(items: Sequence[object]) -> dict[str, str]:
    """What each step is, in order, for the fingerprint."""
    return {"order": hashlib.sha256(repr(list(items)).encode()).hexdigest()[:16]}


def answer_head(name: str, question: Question) -> Record:
    """The keys of an answer record that are known before it is asked."""
    return {
        "model": name,
        "question_id": question.id,
        "category": question.category,
        "questions": list(question.turns),
    }


def _answered(replies: Sequence[Reply], error: str | None, is_final: bool) -> Record:
    return {
        "turns": [reply.text for reply in replies],
        "status": "error" if error else "ok",
        **({"error": error} if error else {}),
        **({"final": True} if is_final else {}),
        "tokens_sent": [reply.prompt_tokens for reply in replies],
        "tokens_dropped": [reply.dropped_tokens for reply in replies],
        "tokens_side": [reply.side_tokens for reply in replies],
        "tokens_new": [reply.new_tokens for reply in replies],
        "tokens_counted": [reply.counted for reply in replies],
        "finish_reasons": [reply.finish_reason for reply in replies],
        **_thinking(replies),
    }


def _thinking(replies: Sequence[Reply]) -> Record:
    """What was thought before each turn; no key where nothing was."""
    if all(reply.thinking is None for reply in replies):
        return {}
    return {
        "thinking": [reply.thinking for reply in replies],
        "thinking_tokens": [reply.thinking_tokens for reply in replies],
    }


@dataclass
class ImportedWork:
    """Answers of a file as records, so that everything after reads one form."""

    bench: Bench
    task: AgentTask
    effective: Mapping[str, Any] = field(default_factory=lambda: {"imported": True})
    opening: Mapping[str, Any] = field(default_factory=lambda: {"items": 0})

    @property
    def steps(self) -> int:
        """One a question."""
        return len(self.bench.questions)

    def state(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def step(self, index: int) -> Step:
        """One answer of the file; a question that it leaves out, or answers in fewer turns, is an error."""
        question = self.bench.questions[index]
        answer = self.task.imported.get(question.id)
        error = "the file has no answer to this question" if answer is None else answer.error
        turns = list(answer.turns[: len(question.turns)]) if answer and not error else []
        if not error and len(turns) < len(question.turns):
            error = f"turn {len(turns) + 1}: the file has none"
        told = {"turns": turns, "status": "error" if error else "ok", **({"error": error} if error else {})}
        return Step([answer_head(self.task.name, question) | told | {"imported": True}], {"items": 1})


class JudgeWork(_AheadWork):
    """One judge's judgments of one agent, or of two side by side."""

    def __init__(
        self,
        bench: Bench,
        task: JudgeTask,
        answers: Sequence[Sequence[Record]],
        backend: OpenBackend | None,
        opening: Mapping[str, Any],
        workers: int,
    ) -> None:
        """A judgment a step; ``answers`` are each agent's records."""
        self.bench, self.task = bench, task
        self._items = bench.turns()
        self._answers = [{record["question_id"]: record for record in part} for part in answers]
        super().__init__(len(self._items), workers, backend, opening, is_endpoint=is_endpoint(task))
        text = b"".join(encode({"q": r["question_id"], "t": r["turns"]}) for part in answers for r in part)
        self._effective["steps"] = _order([(question.id, turn) for question, turn in self._items])
        self._effective["answers"] = hashlib.sha256(text).hexdigest()[:16]

    def record(self, index: int) -> tuple[Record, dict[str, Any]]:
        """Judge one turn of one question; an answer that failed is not judged."""
        question, turn = self._items[index]
        talk = partial(self._talk, question, turn)
        answers = [part[question.id] for part in self._answers]
        missing = [answer["model"] for answer in answers if len(answer["turns"]) < turn]
        guided = self.bench.has_reference(question, turn)
        if missing:
            judged = _not_judged(self.task.mode, f"{' and '.join(missing)}: there is no answer to judge")
        elif self.task.mode == "single":
            judged = judge_single(
                self.bench.prompts, question, answers[0]["turns"], turn, with_reference=guided, talk=talk
            )
        else:
            first, second = (answer["turns"] for answer in answers)
            judged = judge_pair(self.bench.prompts, question, first, second, turn, with_reference=guided, talk=talk)
        return self._head(question, turn) | judged, {}

    def _head(self, question: Question, turn: int) -> Record:
        names = [agent.name for agent in self.task.agents]
        who = {"model": names[0]} if self.task.mode == "single" else {"first": names[0], "second": names[1]}
        place = {"question_id": question.id, "category": question.category, "turn": turn}
        return {"judge": self.task.judge.name, "mode": self.task.mode, **who, **place}

    def _talk(self, question: Question, turn: int, system: str, label: str) -> Talk:
        judge = self.task.judge
        assert self._backend is not None
        sampling = Sampling(judge.max_new_tokens + judge.thinking_tokens, judge.temperature)
        seed = self.bench.section.seed
        return _AgentTalk(Agent(self._backend(label), system=system.strip() or None, sampling=sampling, seed=seed))


class RuleJudgeWork(JudgeWork):
    """Judgments by rule (see ``mtbench.rule_judge``): nothing is loaded or asked."""

    def __init__(self, bench: Bench, task: JudgeTask, answers: Sequence[Sequence[Record]]) -> None:
        """A judgment a step."""
        super().__init__(bench, task, answers, None, {"items": 0, "load_s": None}, 1)

    def _talk(self, question: Question, turn: int, system: str, label: str) -> Talk:
        turns = [part[question.id]["turns"][turn - 1] for part in self._answers]
        return RuleTalk(question, turn, turns[::-1] if label.endswith("order2") else turns)


def _not_judged(mode: str, why: str) -> Record:
    pair: Record = {"winner": None, "flipped": None, "orders": []}
    nothing: Record = {"rating": None, "judgment": None} if mode == "single" else pair
    return {"prompt": None, **nothing, "status": "not_judged", "why": why}


@dataclass
class _AgentTalk:
    """A judge's conversation by the chat agent."""

    agent: Agent

    def ask(self, text: str) -> Said:
        """Ask with everything said before."""
        reply = self.agent.ask(text)
        return Said(reply.text, reply.prompt_tokens, reply.new_tokens, reply.counted, reply.thinking)
