"""The eval job: load each model once, score or generate for each subject, and write a record per question."""

import copy
import datetime
import hashlib
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack, cast

import click

from llmjobs.benchmarks.base import Doc, Grade
from llmjobs.benchmarks.prompting import EncodedUnit, encode_unit
from llmjobs.benchmarks.scoring_requests import Request, Score, common_length
from llmjobs.calls.spending import MinuteLimit, PaidCalls
from llmjobs.clocks import DeviceClock, Span, measured
from llmjobs.engines.batches import UnitPlan
from llmjobs.engines.pass_time import Budget
from llmjobs.engines.protocol import (
    Asked,
    Engine,
    Extent,
    Generation,
    Generator,
    ProbeResult,
    RemoteEngine,
    Scorer,
    prefix_token_id,
)
from llmjobs.engines.registry import devices, open_model, prefetch
from llmjobs.engines.trial_cache import Known
from llmjobs.errors import LlmjobsError, ManifestError
from llmjobs.eval.failed_calls import ask_again
from llmjobs.eval.stop import StopWhenDecided, blocks_record, recorded_blocks
from llmjobs.eval.summary import record_printer, render_summary, summarize
from llmjobs.eval.tasks import Task, eval_section, make_spending, make_tasks, with_limit, write_docs
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.manifest.endpoint_limits import EndpointLimits
from llmjobs.prompt_format import PromptFormat, ServerFormat, unused_thinking
from llmjobs.records import EvalDetails, EvalRecord
from llmjobs.run_study import run_study
from llmjobs.work.call_journal import CallJournal, spent_calls
from llmjobs.work.folder import Revisions, RunFolder, read_object, run_date
from llmjobs.work.held_model import HeldModel
from llmjobs.work.memory_kills import MemoryLimits
from llmjobs.work.outcome import Outcome
from llmjobs.work.run import OnRecords
from llmjobs.work.unit_progress import progress_of
from llmjobs.work.units import Saved, Step, Turn, Unit, Work

DECIMALS = 6
"""Log-likelihoods are rounded to 1e-6 nats, finer than float32 resolves, so records are equal on all machines."""
DOCS_A_STEP = 16
"""Replies generated between two checkpoints. A unit that was started with another number keeps it."""

STEPS_BEFORE = {"docs_a_step": 16}
"""Steps of units whose checkpoint does not name them."""


def record_of(
    task: Task,
    doc: Doc,
    grade: Grade | None,
    *,
    loglikelihoods: list[float] | None = None,
    **details: Unpack[EvalDetails],
) -> EvalRecord:
    """Return one line of ``records.jsonl``; without a grade, the question ended in an error."""
    status = "error" if grade is None else "unparsed" if grade.prediction is None else "ok"
    return {
        "model": task.model.name,
        "benchmark": task.data.spec.name,
        "subject": task.data.subject,
        "doc_id": doc.doc_id,
        "gold": doc.gold,
        "prediction": grade.prediction if grade else None,
        "correct": grade.correct if grade else None,
        "loglikelihoods": loglikelihoods,
        "status": status,
        "metrics": dict(grade.metrics) if grade else {},
        **details,
    }


def asked_as(encoded: EncodedUnit, at: int) -> EvalDetails:
    """Return the number of shots that fit, and a mark for each way in which this prompt differs from the manifest."""
    asked: EvalDetails = {"num_fewshot": encoded.shots_used[at]}
    if encoded.truncated[at]:
        asked["truncated"] = True
    if encoded.shortened[at]:
        asked["shortened"] = True
    if encoded.joined[at]:
        asked["joined"] = True
    return asked


def times_of(span: Span, effective: Mapping[str, Any]) -> dict[str, Any]:
    """Return the measurements. For a model on a server, only real time counts: CPU and memory are this machine's."""
    found = span.to_record()
    return {"real_s": found["real_s"]} if effective.get("engine") == "endpoint" else found


def again(failed: Score | Generation) -> EvalDetails:
    """Return the mark of a question that the next run asks again."""
    return {"temporary": True} if failed.is_temporary else {}


@dataclass(frozen=True)
class Part:
    """Docs that are planned together: a whole unit, or one block of its questions."""

    docs: Sequence[Doc]
    plan: UnitPlan

    @property
    def step_tokens(self) -> list[int]:
        """Tokens of each step: the batches, and one more step without tokens if docs were refused."""
        return [batch.tokens for batch in self.plan.batches] + [0] * bool(self.plan.refused)


@dataclass
class LoglikelihoodWork:
    """Log-likelihoods of every option, one batch per step. Docs that cannot be scored are in a part's last step."""

    task: Task
    parts: Sequence[Part]
    encoded: EncodedUnit
    engine: Engine
    scorer: Scorer
    clock: DeviceClock | None
    effective: Mapping[str, Any]
    opening: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _steps(self) -> list[tuple[Part, int]]:
        return [(part, at) for part in self.parts for at in range(len(part.step_tokens))]

    @property
    def steps(self) -> int:
        """The steps of all parts."""
        return len(self._steps)

    def step(self, index: int) -> Step:
        """Score one batch and grade its docs."""
        part, at = self._steps[index]
        docs, plan = part.docs, part.plan
        if at == len(plan.batches):
            refused = sorted(plan.refused.items())
            records = [record_of(self.task, docs[place], None, error=reason) for place, reason in refused]
            return Step(records, {"items": len(records)})
        batch = plan.batches[at]
        with measured(self.clock) as span:
            scores = self.scorer.score_batch(plan, at)
        pairs = zip(batch.docs, scores, strict=True)
        records = [self._record(docs[place], row) for place, row in pairs]
        return Step(records, {"items": len(records), "tokens": batch.tokens, **times_of(span, self.effective)})

    def state(self) -> Mapping[str, Any]:
        """The batch size that out-of-memory errors left."""
        return {"token_limit": self.scorer.token_limit}

    def _record(self, doc: Doc, scores: Sequence[Score]) -> EvalRecord:
        values = [score.loglikelihood for score in scores]
        shots = asked_as(self.encoded, doc.doc_id)
        if failed := next((score for score in scores if score.error), None):
            failure: EvalDetails = {"error": failed.error or "", **again(failed), **shots}
            return record_of(self.task, doc, None, **failure)
        if not all(map(math.isfinite, values)):
            details: EvalDetails = {"error": self.engine.not_finite_reason, **shots}
            return record_of(self.task, doc, None, **details)
        rounded = [round(value, DECIMALS) for value in values]
        grade = self.task.data.benchmark.grade(doc, rounded, [score.is_greedy for score in scores])
        return record_of(self.task, doc, grade, loglikelihoods=rounded, **shots)


@dataclass
class GenerationWork:
    """A generated reply for each doc, several per step. The docs of a step are recorded in the checkpoint.

    ``parts`` are the docs of a whole unit, or of each block of its questions; no step crosses the end of a part.
    """

    task: Task
    parts: Sequence[Sequence[Doc]]
    encoded: EncodedUnit
    generator: Generator
    clock: DeviceClock | None
    seed: int
    effective: Mapping[str, Any]
    opening: Mapping[str, Any] = field(default_factory=dict)
    docs_a_step: int = field(default_factory=lambda: DOCS_A_STEP)
    _ready: int | None = None
    """The part whose common beginning the generator has computed."""

    def keep_steps(self, saved: Saved | None) -> None:
        """Keep the steps that the unit was started with, even if this version would plan others."""
        if saved is not None and saved.effective:
            steps = saved.effective.get("steps") or {}
            self.docs_a_step = int(steps.get("docs_a_step", STEPS_BEFORE["docs_a_step"]))
        order = hashlib.sha256(repr([doc.doc_id for part in self.parts for doc in part]).encode()).hexdigest()[:16]
        self.effective = {**self.effective, "steps": {"docs_a_step": self.docs_a_step, "order": order}}

    def steps_of(self, part: int) -> int:
        """Number of steps of one part: its docs in groups."""
        return math.ceil(len(self.parts[part]) / self.docs_a_step)

    @property
    def steps(self) -> int:
        """The steps of all parts."""
        return sum(map(self.steps_of, range(len(self.parts))))

    def step(self, index: int) -> Step:
        """Generate for one group of docs, each with its own settings, and grade the replies."""
        part = 0
        while index >= (count := self.steps_of(part)):
            index, part = index - count, part + 1
        docs = self.parts[part][index * self.docs_a_step : (index + 1) * self.docs_a_step]
        with measured(self.clock) as span:
            if self._ready != part:
                self.generator.keep_prefix([self._asked(doc) for doc in self.parts[part]])
                self._ready = part
            replies = self.generator.generate([self._asked(doc) for doc in docs])
        records = [self._record(doc, reply) for doc, reply in zip(docs, replies, strict=True)]
        tokens = sum((reply.prompt_tokens or 0) + (reply.new_tokens or 0) for reply in replies)
        return Step(records, {"items": len(records), "tokens": tokens, **times_of(span, self.effective)})

    def state(self) -> Mapping[str, Any]:
        """The rows that run at once after out-of-memory errors, and how they are decoded."""
        return {"row_limit": self.generator.row_limit, "decoding_path": self.generator.path}

    def _asked(self, doc: Doc) -> Asked:
        how = self.encoded.generations[doc.doc_id]
        return Asked(
            self.encoded.contexts[doc.doc_id],
            max_new_tokens=how.max_new_tokens,
            stop=how.stop,
            temperature=how.temperature,
            seed=self.seed + doc.doc_id,
            thinking=self.encoded.format.thinking_limit(
                how.max_new_tokens, self.task.data.benchmark.generation(doc).max_new_tokens
            ),
            prompt=self.encoded.prompts[doc.doc_id] if self.encoded.prompts else None,
        )

    def _record(self, doc: Doc, reply: Generation) -> EvalRecord:
        thinking = self.encoded.format.split(reply.token_ids, reply.text, self._stop(doc))
        if reply.thinking is not None:
            thinking = replace(thinking, thinking=reply.thinking, tokens=None)
        grade = None if reply.error else self.task.data.benchmark.grade_text(doc, thinking.answer)
        details: EvalDetails = {
            "text": thinking.answer,
            "finish_reason": reply.finish_reason,
            "new_tokens": reply.new_tokens,
            **asked_as(self.encoded, doc.doc_id),
        }
        if thinking.thinking is not None:
            details["thinking"] = thinking.thinking
            details["thinking_tokens"] = thinking.tokens
        if reply.thinking_cut:
            details["thinking_cut"] = True
        if reply.error:
            details["error"] = reply.error
            details |= again(reply)
        if reply.cut_tokens:
            details["cut_tokens"] = reply.cut_tokens
        return record_of(self.task, doc, grade, **details)

    def _stop(self, doc: Doc) -> tuple[str, ...]:
        """The strings that end an answer; they are only searched after the thinking."""
        return (*self.task.data.benchmark.generation(doc).stop, *self.encoded.format.ends[1])


log = logging.getLogger(__name__)


class EvalJob:
    """Accuracy of every model of a study on every subject of its benchmarks."""

    name = "eval"

    def __init__(self, study: Manifest, folder: RunFolder) -> None:
        """Nothing is read before :meth:`units`."""
        self.study, self.folder = study, folder
        self.section = eval_section(study)
        self.tasks: dict[str, Task] = {}
        self.stop: StopWhenDecided | None = None
        self._held: HeldModel[ModelSpec, EvalModel] = HeldModel()
        self._prefetches = True
        self._date: datetime.date | None = None
        self.spending = make_spending(self.section)
        self._minutes: dict[str, MinuteLimit] = {}

    def for_worker(self) -> "EvalJob":
        """A copy without a loaded model for another machine, on which the next model is not known."""
        other = copy.copy(self)
        other._held, other._prefetches = HeldModel(), False
        del other.spending, other._minutes  # units that ask an endpoint stay with the command
        return other

    def units(self) -> Sequence[Unit]:
        """One unit for each model and subject, model by model."""
        self._date = run_date(self.study, self.folder)
        units = []
        for task in make_tasks(self.study, Revisions.of(self.folder)):
            unit = task.unit(self.section.seed)
            self.tasks[unit.path] = task
            units.append(unit)
            if task.model.endpoint:
                ask_again(self.folder, unit)
        self.spending.book_past(spent_calls(self.folder.path / self.name))
        if self.section.stop:
            self.stop = StopWhenDecided(self.study, self.section, list(self.tasks.values()), self.folder)
        return units

    @property
    def may_stop_early(self) -> bool:
        """Whether a rule may end the questions."""
        return self.stop is not None

    def turns(self, units: Sequence[Unit]) -> Iterable[Turn]:
        """Every unit to its end; with ``stop:``, blocks of questions until the rule is decided."""
        return self.stop.turns(units) if self.stop else map(Turn, units)

    @contextmanager
    def open(self, unit: Unit, saved: Saved | None) -> Iterator[Work]:
        """Load the unit's model if it is not loaded yet, encode its prompts, and plan its batches."""
        task = self.tasks[unit.path]
        if task.error:
            raise LlmjobsError(task.error)
        with ExitStack() as stack:
            yield self._opened(unit, task, saved, stack)

    def _opened(self, unit: Unit, task: Task, saved: Saved | None, stack: ExitStack) -> Work:
        with measured() as span:
            bench = self.loaded(task.model)
            if task.model.endpoint:
                self._pay(unit, task.model, bench.engine, stack)
            work = self._work(task, bench, saved)
        write_docs(self.folder, task.data)
        if saved and saved.killed_for_memory:
            log.warning("%s: continuing with %s", unit.path, _smaller(work.state()))
        limits = bench.limits.to_record()
        mapped = {"mapped_weight_bytes": bench.engine.mapped_weight_bytes}
        loaded_now = self._held.take_load_s() is not None
        took = {"load_s": bench.load_s if loaded_now else None, "prepare_s": bench.take_prepare_s()}
        work.opening = {**times_of(span, work.effective), **took, **mapped, "items": 0, **limits}
        return work

    def _pay(self, unit: Unit, spec: ModelSpec, engine: Engine, stack: ExitStack) -> None:
        """Send a unit's calls through its own journal, within the spending limits of the whole run."""
        remote = cast(RemoteEngine, engine)
        limits = self.section.endpoints.get(spec.name, EndpointLimits())
        minute = self._minutes.setdefault(spec.name, MinuteLimit(limits.requests_per_minute, limits.tokens_per_minute))
        journal = CallJournal(self.folder.path / unit.path)
        stack.callback(journal.close)
        calls = PaidCalls(journal, spec.name, self.spending, minute, remote.changes)
        remote.pay_with(calls, workers=limits.concurrency, timeout_s=self.section.timeout_s)
        stack.callback(remote.pay_with, None)

    def close(self) -> None:
        """Free the model."""
        self._held.close()

    def models(self) -> Mapping[str, ModelSpec]:
        """Models by name."""
        return {model.name: model for model in self.study.models}

    @property
    def threads(self) -> int | str:
        """Of the manifest's section."""
        return self.section.threads

    def printer(self) -> OnRecords:
        """Print each question with the model's answer."""
        return record_printer(lambda path: self.tasks[path].data.docs, click.echo)

    def summarize(self, outcome: Outcome) -> tuple[Mapping[str, Any], str]:
        """Accuracy by model, benchmark and subject."""
        part = summarize(
            self.folder, [task.unit(self.section.seed) for task in self.tasks.values()], outcome, self.spending
        )
        if self.stop:
            part["stop"] = self.stop.to_record()
            if self.stop.decided:
                part |= {"status": "partial" if outcome.failed else "complete", "units_missing": []}
        outcome.in_error = sum(model["errors"] for model in part["models"])
        return part, render_summary(part)

    def loaded(self, spec: ModelSpec) -> "EvalModel":
        """Return the model; load it if another one is loaded.

        Raises:
            LlmjobsError: it cannot be loaded.

        """
        return self._held.get(spec, lambda: self._load(spec))

    def _load(self, spec: ModelSpec) -> "EvalModel":
        bench = EvalModel(spec, self.study, self.folder)
        self._prefetch_after(spec)
        return bench

    def _prefetch_after(self, spec: ModelSpec) -> None:
        if not self._prefetches:
            return
        names = [m.name for m in self.study.models]
        following = names[names.index(spec.name) + 1 :][:1]
        for task in self.tasks.values():
            if task.model.name in following and task.located:
                prefetch(task.model, task.located)
                return

    def _work(self, task: Task, bench: "EvalModel", saved: Saved | None) -> LoglikelihoodWork | GenerationWork:
        spec, data = task.model, task.data
        generates = data.benchmark.output_type(data.subject) == "generate_until"
        encoded = encode_unit(
            data.benchmark,
            data.docs,
            data.shots,
            bench.engine.tokenizer,
            max_length=bench.engine.max_length,
            chat_template=spec.chat_template,
            fewshot_as_turns=spec.fewshot_as_turns,
            system=spec.system,
            thinking=None if generates and _began_before_prompts_were_kept(saved) else spec.thinking,
            date=self._date,
            who=spec.name,
        )
        bench.note_prompts(encoded.format, spec.system or "")
        if not generates:
            extent = _extent(encoded, [one for one in self.tasks.values() if one.model == spec])
            bench.prepare_scoring(extent, encoded.requests if spec.endpoint else ())
        effective = {
            **bench.effective,
            "bos": encoded.bos,
            "system_message": encoded.system,
            **encoded.format.to_record(spec.system or ""),
        }
        clock = bench.engine.clock()
        blocks = recorded_blocks(saved.effective) if saved else self.stop.blocks_of(task.path) if self.stop else None
        docs = [[data.docs[at] for at in block] for block in blocks] if blocks is not None else [data.docs]
        if generates:
            if saved and "scoring_path" in saved.effective:  # another unit may have found it since
                effective["scoring_path"] = saved.effective["scoring_path"]
            effective |= {"prompts": encoded.digest()}
            generator = bench.generator(saved)
            generator.end_tokens = generator.end_tokens | encoded.format.ends[0]
            bench.write()
            work = GenerationWork(task, docs, encoded, generator, clock, self.section.seed, effective)
            work.keep_steps(saved)
            if blocks is not None:
                found = blocks_record(blocks, map(work.steps_of, range(len(docs))))
                work.effective = {**work.effective, "blocks": found}
            return work
        parts = [Part(part, self._plan(bench, encoded, part)) for part in docs]
        log.info("%s: %s", data.key, "; ".join(part.plan.describe() for part in parts))
        if not spec.endpoint:
            bench.scorer.token_limit = bench.limits.tokens(saved, [n for part in parts for n in part.step_tokens])
        bench.write()
        plans = [part.plan.to_builtin() for part in parts]
        effective |= {
            "prompts": encoded.digest(),
            "plan": plans[0] if blocks is None else {str(number): plan for number, plan in enumerate(plans)},
            "scoring_path": bench.scorer.path_of(
                max((part.plan for part in parts), key=lambda plan: plan.total_tokens)
            ),
        }
        if blocks is not None:
            effective |= {"blocks": blocks_record(blocks, (len(part.step_tokens) for part in parts))}
        return LoglikelihoodWork(task, parts, encoded, bench.engine, bench.scorer, clock, effective)

    def _plan(self, bench: "EvalModel", encoded: EncodedUnit, docs: Sequence[Doc]) -> UnitPlan:
        assert bench.batch_tokens is not None
        return bench.scorer.plan(
            [encoded.requests[doc.doc_id] for doc in docs],
            max_length=bench.engine.max_length,
            batch_tokens=bench.batch_tokens,
            prefix_token_id=prefix_token_id(bench.engine.tokenizer),
        )


def _extent(encoded: EncodedUnit, tasks: Sequence[Task]) -> Extent:
    docs = [max(doc, key=lambda one: len(one.context)) for doc in encoded.requests if doc]
    if not docs:
        return Extent(0, 0, 0)
    prefix = min((common_length(docs[0].context, one.context) for one in docs[1:]), default=0)
    own = sum(len(one.context) - prefix + len(one.continuation) for one in docs)
    questions = sum(task.data.count for task in tasks)
    return Extent(prefix * len(tasks) + own * max(questions, len(docs)) // len(docs), own, prefix)


class EvalModel:
    """One loaded model with its scorer, and what is recorded about it.

    Trials (which path is right, how large batches should be) are run when a unit needs them, in proportion to the
    study, and kept for the next run of the same model on this machine. What this run has recorded has priority, so a
    run continues as it began.
    """

    def __init__(self, spec: ModelSpec, study: Manifest, folder: RunFolder) -> None:
        section = eval_section(study)
        self.spec = spec
        with measured() as span:
            self.engine: Engine = open_model(spec, threads=section.threads)
        self.load_s = round(span.real_s, 6)
        self.scorer = self.engine.scorer(warn=log.warning)
        self.effective: dict[str, Any] = {**self.engine.effective, "scoring_path": self.scorer.path}
        self._folder, self._file = folder, f"eval/{spec.name}/model.json"
        self._earlier = read_object(folder.path / self._file)
        settings = {key: value for key, value in self.effective.items() if key != "scoring_path"}
        self._known = Known(
            id=spec.id,
            revision=self.engine.description.revision,
            device_name=self.engine.device_name,
            device_map=spec.device_map,
            engine_name=settings.pop("engine"),
            **settings,
        )
        self._known.put("load", {"load_s": round(span.real_s, 3)})
        self.limits = MemoryLimits.read(self._earlier)
        self.probe: ProbeResult | None = None
        self.budget: Budget | None = None
        self.batch_tokens: int | None = self._given_budget(section.batch_tokens)
        self._prepare_s = 0.0
        self._decoding: Mapping[str, Any] | None = None
        self._written: dict[str, Any] = {}
        self._prompts: dict[str, Any] | None = None
        if (mine := self.scorer.recall(self._own("probe"))) is not None:
            self._take_probe(mine)
        self.write()

    def prepare_scoring(self, extent: Extent, docs: Sequence[Sequence[Request]] = ()) -> None:
        """Choose the scoring path and the batch size, unless this run has recorded them already.

        ``docs`` are for an engine that needs real prompts to try.
        """
        began = time.monotonic()
        if self.probe is None:
            self._take_probe(self._probed(extent, docs))
        if self.batch_tokens is None:
            self.budget = self._measured_budget(extent, time.monotonic() - began)
            self.batch_tokens = self.budget.batch_tokens
        self._prepare_s += time.monotonic() - began

    def _probed(self, extent: Extent, docs: Sequence[Sequence[Request]]) -> ProbeResult:
        if (kept := self.scorer.recall(self._known.get("probe"))) is not None:
            return kept
        found = self.scorer.probe(docs, most_tokens=extent.study_tokens)
        self._known.put("probe", found.to_builtin())
        return found

    def _take_probe(self, found: ProbeResult) -> None:
        self.probe = found
        self.effective["scoring_path"] = found.path

    def _measured_budget(self, extent: Extent, probe_s: float) -> Budget:
        kept = self._known.get("budget")
        found = self.scorer.batch_budget(extent, kept=kept, spent_s=probe_s)
        if found.time is not None and found.to_builtin() != kept:
            self._known.put("budget", found.to_builtin())
        return found

    def _own(self, name: str) -> Any:
        """What this run recorded on this machine with this build."""
        return self._earlier.get(name) if self._earlier.get("measured_on") == self._known.digest else None

    def note_prompts(self, prompt_format: PromptFormat | ServerFormat, system: str) -> None:
        """Warn once about what the chat template adds to the prompts, and record it in ``model.json``."""
        if self._prompts is not None:
            return
        self._prompts = prompt_format.to_record(system)
        if unused := unused_thinking(self.spec.chat_template, self.spec.thinking):
            log.warning("%s: %s", self.spec.name, unused)
        if added := self._prompts.get("template_system"):
            log.warning("%s: its chat template adds to every prompt: %r", self.spec.name, _short(added))
        if self._prompts.get("thinking", "none") != "none":
            log.warning("%s: thinking is %s", self.spec.name, self._prompts["thinking"])

    def generator(self, saved: Saved | None) -> Generator:
        """A generator for one unit. The decoding path is chosen once per model, and a resumed unit keeps it."""
        began, begun_on = time.monotonic(), saved.state.get("decoding_path") if saved else None
        found = self._decoding or self._own("decoding") or self._known.get("decoding")
        generator = self.engine.generator(begun_on, found=found, warn=log.warning)
        self._prepare_s += time.monotonic() - began
        generator.row_limit = self.limits.rows(saved, generator.row_limit)
        self._decoding = generator.to_record()
        if self._decoding != found:
            self._known.put("decoding", self._decoding)
        return generator

    def write(self) -> None:
        """Update ``model.json``: what was loaded, and the limits with which it runs."""
        record = self.engine.description.to_record() | self.effective | {"chat_template": self.spec.chat_template}
        record |= {"measured_on": self._known.digest}
        if self.probe:
            record["probe"] = self.probe.to_builtin()
        if self.batch_tokens:
            record["batch_tokens"] = self.batch_tokens
        if budget := self.budget.to_builtin() if self.budget else self._own("budget"):
            record["budget"] = budget
        record |= self.limits.to_record() | (self._prompts or {})
        if self._decoding is None and (decoding := self._own("decoding")):
            record["decoding"] = decoding
        if self._decoding:
            record["decoding"] = dict(self._decoding)
        if record != self._written:
            self._folder.write_json(self._file, record)
            self._written = record

    def _given_budget(self, wanted: int | str) -> int | None:
        """Return the manifest's value or the one this run measured before: batches must not change between attempts."""
        known = wanted if isinstance(wanted, int) else self._earlier.get("batch_tokens")
        return known if isinstance(known, int) and known > 0 else None

    def take_prepare_s(self) -> float:
        """Seconds spent on choosing path and batch size since the last call."""
        taken, self._prepare_s = self._prepare_s, 0.0
        return round(taken, 6)

    def close(self) -> None:
        """Free the scorer and the model."""
        self.scorer.close()
        self.engine.close()


def _began_before_prompts_were_kept(saved: Saved | None) -> bool:
    """Whether a resumed unit was started by an older llmjobs, which left thinking to the chat template."""
    return saved is not None and bool(saved.effective) and "prompts" not in saved.effective


def _smaller(state: Mapping[str, Any]) -> str:
    """A line on the reduced batch size in a work's state."""
    if (rows := state.get("row_limit")) is not None:
        return f"at most {rows} replies at once"
    return f"at most {state['token_limit']:,} tokens a batch" if state.get("token_limit") else "smaller batches"


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"


__all__ = ["dry_run", "run", "with_limit"]


def run(study: Manifest, results: Path, *, fresh: bool = False, show: bool = False, ray: str | None = None) -> Outcome:
    """Run or resume the eval job of ``study`` below ``results``, on ``ray`` if given, and print the summary.

    Raises:
        LlmjobsError: one line; nothing that was saved is lost.

    """
    if ray and eval_section(study).stop:
        raise ManifestError(
            f"{study.name}: eval.stop cannot be used on a cluster: remove --ray, or stop: to ask every question there"
        )
    return run_study(
        lambda study, folder, _: EvalJob(study, folder),
        study,
        results,
        fresh=fresh,
        show=show,
        ray=ray,
        devices=devices(study.models),
    )


def dry_run(study: Manifest, results: Path) -> str:
    """Print what would run and what is done already, without loading a model or writing anything.

    Raises:
        FingerprintError: the run was started with other settings, so it would be refused.

    """
    folder = RunFolder(results / study.name)
    run_date(study, folder, writes=False)
    lines = []
    section = eval_section(study)
    tasks = make_tasks(study, Revisions.of(folder, writes=False))
    for task in tasks:
        unit = task.unit(section.seed)
        state = task.error or progress_of(folder, unit.path, unit.declared)
        lines.append(f"{task.model.name}  {task.data.key}  {task.data.count} questions  {state}")
    if section.stop:
        lines += StopWhenDecided(study, section, tasks, folder).sentences()
    return "\n".join(lines)
