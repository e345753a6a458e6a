"""An opened eval unit: a plan of batches, and the records of each."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmjobs.benchmarks.base import Doc, Judgement
from llmjobs.benchmarks.prompting import EncodedUnit
from llmjobs.clocks import measured
from llmjobs.jobs.eval_tasks import Task
from llmjobs.models.device import DeviceClock
from llmjobs.runner.units import Record, Saved, Step
from llmjobs.scoring.engine import Scorer
from llmjobs.scoring.finite import why_not_finite
from llmjobs.scoring.generate import Asked, Generation, Generator
from llmjobs.scoring.plan import UnitPlan
from llmjobs.scoring.requests import Score

DECIMALS = 6
"""Log-likelihoods are kept to 1e-6 nats: below what float32 resolves, so that a record reads the same everywhere."""
DOCS_A_STEP = 16
"""Replies that are generated between two checkpoints. A unit that was begun with another number goes on with it."""

STEPS_BEFORE = {"docs_a_step": 16}
"""Steps of units whose checkpoint does not name them yet."""


def record_of(task: Task, doc: Doc, judgement: Judgement | None, **extra: Any) -> Record:
    """One line of ``records.jsonl``."""
    record: Record = {
        "model": task.model.name,
        "benchmark": task.data.spec.name,
        "subject": task.data.subject,
        "doc_id": doc.doc_id,
        "gold": doc.gold,
        "prediction": judgement.prediction if judgement else None,
        "correct": judgement.correct if judgement else None,
        "loglikelihoods": None,
        "status": "ok" if judgement else "error",
        "metrics": dict(judgement.metrics) if judgement else {},
    }
    if judgement and judgement.prediction is None:
        record["status"] = "unparsed"
    return record | extra


def asked_as(encoded: EncodedUnit, at: int) -> dict[str, Any]:
    """The shots that fitted, and a mark for each way in which this prompt is not what was asked for."""
    marks = {"truncated": encoded.truncated, "shortened": encoded.shortened, "joined": encoded.joined}
    return {"num_fewshot": encoded.shots_used[at]} | {name: True for name, found in marks.items() if found[at]}


@dataclass
class LoglikelihoodWork:
    """Every option's log-likelihood, a batch of the plan a step; docs that cannot be scored are the last step."""

    task: Task
    docs: Sequence[Doc]
    encoded: EncodedUnit
    plan: UnitPlan
    scorer: Scorer
    clock: DeviceClock
    effective: Mapping[str, Any]
    opening: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Batches, and one more where docs were refused."""
        return len(self.plan.batches) + bool(self.plan.refused)

    def step(self, index: int) -> Step:
        """Score one batch and judge its docs."""
        if index == len(self.plan.batches):
            refused = sorted(self.plan.refused.items())
            records = [record_of(self.task, self.docs[at], None, error=reason) for at, reason in refused]
            return Step(records, {"items": len(records)})
        batch = self.plan.batches[index]
        with measured(self.clock) as span:
            scores = self.scorer.score_batch(self.plan, index)
        pairs = zip(batch.docs, scores, strict=True)
        records = [self._record(self.docs[at], row) for at, row in pairs]
        return Step(records, {"items": len(records), "tokens": batch.tokens, **span.to_record()})

    def state(self) -> Mapping[str, Any]:
        """The batch size that out-of-memory errors left."""
        return {"token_limit": self.scorer.token_limit}

    def _record(self, doc: Doc, scores: Sequence[Score]) -> Record:
        values = [score.loglikelihood for score in scores]
        shots = asked_as(self.encoded, doc.doc_id)
        if not all(map(math.isfinite, values)):
            return record_of(self.task, doc, None, error=why_not_finite(self.scorer.model), **shots)
        rounded = [round(value, DECIMALS) for value in values]
        judgement = self.task.data.benchmark.judge(doc, rounded, [score.is_greedy for score in scores])
        return record_of(self.task, doc, judgement, loglikelihoods=rounded, **shots)


@dataclass
class GenerationWork:
    """A reply for each doc, some of them a step. The docs of a step are kept with the checkpoint."""

    task: Task
    docs: Sequence[Doc]
    encoded: EncodedUnit
    generator: Generator
    clock: DeviceClock
    seed: int
    effective: Mapping[str, Any]
    opening: Mapping[str, Any] = field(default_factory=dict)
    docs_a_step: int = field(default_factory=lambda: DOCS_A_STEP)
    _ready: bool = False

    def take_up(self, saved: Saved | None) -> None:
        """Go on with the steps that the unit was begun with, whatever this version would plan."""
        if saved is not None and saved.effective:
            steps = saved.effective.get("steps") or {}
            self.docs_a_step = int(steps.get("docs_a_step", STEPS_BEFORE["docs_a_step"]))
        order = hashlib.sha256(repr([doc.doc_id for doc in self.docs]).encode()).hexdigest()[:16]
        self.effective = {**self.effective, "steps": {"docs_a_step": self.docs_a_step, "order": order}}

    @property
    def steps(self) -> int:
        """Docs in groups."""
        return math.ceil(len(self.docs) / self.docs_a_step)

    def step(self, index: int) -> Step:
        """Generate for one group of docs, each with its own settings, and judge the replies."""
        docs = self.docs[index * self.docs_a_step : (index + 1) * self.docs_a_step]
        with measured(self.clock) as span:
            if not self._ready:
                self.generator.keep_prefix([self._asked(doc) for doc in self.docs])
                self._ready = True
            replies = self.generator.generate([self._asked(doc) for doc in docs])
        records = [self._record(doc, reply) for doc, reply in zip(docs, replies, strict=True)]
        tokens = sum(reply.prompt_tokens + reply.new_tokens for reply in replies)
        return Step(records, {"items": len(records), "tokens": tokens, **span.to_record()})

    def state(self) -> Mapping[str, Any]:
        """The rows that run at once after out-of-memory errors, and how they are decoded."""
        return {"row_limit": self.generator.row_limit, "decoding_path": self.generator.probe.path}

    def _asked(self, doc: Doc) -> Asked:
        how = self.encoded.generations[doc.doc_id]
        return Asked(
            self.encoded.contexts[doc.doc_id],
            max_new_tokens=how.max_new_tokens,
            stop=how.stop,
            temperature=how.temperature,
            seed=self.seed + doc.doc_id,
        )

    def _record(self, doc: Doc, reply: Generation) -> Record:
        thinking = self.encoded.format.split(reply.token_ids, reply.text, self._stop(doc))
        judgement = None if reply.error else self.task.data.benchmark.judge_text(doc, thinking.answer)
        extra: dict[str, Any] = asked_as(self.encoded, doc.doc_id)
        if thinking.thinking is not None:
            extra |= {"thinking": thinking.thinking, "thinking_tokens": thinking.tokens}
        if reply.error:
            extra["error"] = reply.error
        if reply.cut_tokens:
            extra["cut_tokens"] = reply.cut_tokens
        return record_of(
            self.task,
            doc,
            judgement,
            text=thinking.answer,
            finish_reason=reply.finish_reason,
            new_tokens=reply.new_tokens,
            **extra,
        )

    def _stop(self, doc: Doc) -> tuple[str, ...]:
        """What ends an answer, looked for behind the thinking."""
        return (*self.task.data.benchmark.generation(doc).stop, *self.encoded.format.ends[1])
