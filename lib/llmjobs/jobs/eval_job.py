"""The eval job as the runner sees it: loads each model once, opens one unit after the other on it."""

import copy
import datetime
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmjobs.benchmarks.prompting import encode_unit
from llmjobs.clocks import measured
from llmjobs.errors import LlmjobsError
from llmjobs.jobs.batch_budget import batch_tokens_for
from llmjobs.jobs.eval_tasks import Task, docs_record, eval_section, make_tasks
from llmjobs.jobs.eval_work import GenerationWork, LoglikelihoodWork
from llmjobs.jobs.memory_limits import MemoryLimits
from llmjobs.jobs.revisions import Revisions
from llmjobs.jobs.run_date import run_date
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.measuring.memory import mapped_weight_bytes
from llmjobs.models.device import DeviceClock, set_threads
from llmjobs.models.load import LoadedModel, files_of, load_model
from llmjobs.models.prefetch import prefetch
from llmjobs.process_memory import WATCH
from llmjobs.prompt_format import PromptFormat
from llmjobs.runfolder import disk
from llmjobs.runfolder.folder import RunFolder, read_object
from llmjobs.runfolder.journal import encode
from llmjobs.runner.units import Saved, Unit, Work
from llmjobs.scoring.decode_probe import DecodeProbe, probe_decoding
from llmjobs.scoring.decoding import PATHS as DECODING_PATHS
from llmjobs.scoring.engine import Scorer
from llmjobs.scoring.generate import Generator

log = logging.getLogger(__name__)


class EvalJob:
    """Accuracy of every model of a study on every subject of its benchmarks."""

    name = "eval"

    def __init__(self, study: Manifest, folder: RunFolder) -> None:
        """Nothing is read before :meth:`units`."""
        self.study, self.folder = study, folder
        self.section = eval_section(study)
        self.tasks: dict[str, Task] = {}
        self._bench: _Bench | None = None
        self._failed: dict[str, LlmjobsError] = {}
        self._prefetches = True
        self._date: datetime.date | None = None

    def for_worker(self) -> "EvalJob":
        """A copy with no model loaded, to be sent to another machine; which model comes next is not known there."""
        other = copy.copy(self)
        other._bench, other._failed, other._prefetches = None, {}, False
        return other

    def units(self) -> Sequence[Unit]:
        """One unit for each model and subject, model by model."""
        self._date = run_date(self.study, self.folder)
        units = []
        for task in make_tasks(self.study, Revisions.of(self.folder)):
            unit = task.unit(self.section.seed)
            self.tasks[unit.path] = task
            units.append(unit)
        return units

    @contextmanager
    def open(self, unit: Unit, saved: Saved | None) -> Iterator[Work]:
        """Load the unit's model if it is not there yet, encode its prompts, plan its batches."""
        task = self.tasks[unit.path]
        if task.error:
            raise LlmjobsError(task.error)
        with measured() as span:
            bench = self._model(task.model)
            work = self._work(task, bench, saved)
        self._write_docs(task)
        if saved and saved.killed_for_memory:
            log.warning("%s: going on with less at once: %s", unit.path, dict(work.state()))
        limits = bench.limits.to_record()
        mapped = {"mapped_weight_bytes": bench.mapped_weight_bytes}
        work.opening = {**span.to_record(), "load_s": bench.take_load_s(), **mapped, "items": 0, **limits}
        yield work

    def close(self) -> None:
        """Free the model."""
        if self._bench:
            self._bench.close()
            self._bench = None

    def _model(self, spec: ModelSpec) -> "_Bench":
        if self._bench and self._bench.spec == spec:
            return self._bench
        self.close()
        if spec.name in self._failed:
            raise self._failed[spec.name]
        try:
            self._bench = _Bench(spec, self.study, self.folder)
        except LlmjobsError as error:
            self._failed[spec.name] = error
            raise
        self._prefetch_after(spec)
        return self._bench

    def _prefetch_after(self, spec: ModelSpec) -> None:
        if not self._prefetches:
            return
        names = [m.name for m in self.study.models]
        following = names[names.index(spec.name) + 1 :][:1]
        for task in self.tasks.values():
            if task.model.name in following and task.located and (files := files_of(task.located)):
                prefetch(files)
                return

    def _work(self, task: Task, bench: "_Bench", saved: Saved | None) -> LoglikelihoodWork | GenerationWork:
        spec, data = task.model, task.data
        generates = data.benchmark.output_type(data.subject) == "generate_until"
        encoded = encode_unit(
            data.benchmark,
            data.docs,
            data.shots,
            bench.loaded.tokenizer,
            max_length=bench.loaded.max_length,
            chat_template=spec.chat_template,
            fewshot_as_turns=spec.fewshot_as_turns,
            system=spec.system,
            thinking=None if generates and _began_before_prompts_were_kept(saved) else spec.thinking,
            date=self._date,
            who=spec.name,
        )
        bench.tell_added(encoded.format, spec.system or "")
        effective = {
            **bench.effective,
            "bos": encoded.bos,
            "system_message": encoded.system,
            **encoded.format.to_record(spec.system or ""),
        }
        clock = DeviceClock(bench.loaded.device)
        if generates:
            effective |= {"prompts": encoded.digest()}
            generator = bench.generator(saved)
            generator.end_tokens = generator.end_tokens | encoded.format.ends[0]
            bench.write()
            work = GenerationWork(task, data.docs, encoded, generator, clock, self.section.seed, effective)
            work.take_up(saved)
            return work
        plan = bench.scorer.plan(
            encoded.requests,
            max_length=bench.loaded.max_length,
            batch_tokens=bench.batch_tokens,
            prefix_token_id=bench.prefix_token_id,
        )
        log.info("%s: %s", data.key, plan.describe())
        bench.scorer.token_limit = bench.limits.tokens(saved, plan)
        bench.write()
        effective |= {
            "prompts": encoded.digest(),
            "plan": plan.to_builtin(),
            "scoring_path": bench.scorer.path_of(plan),
        }
        return LoglikelihoodWork(task, data.docs, encoded, plan, bench.scorer, clock, effective)

    def _write_docs(self, task: Task) -> None:
        assert task.data.test is not None
        lines = b"".join(encode(docs_record(doc, task.data.test.hash)) for doc in task.data.docs)
        relative = f"docs/{task.data.key}.jsonl"
        path = self.folder.path / relative
        if not disk.is_there(path) or _content(path) != lines:
            self.folder.write_text(relative, lines.decode())


class _Bench:
    """One loaded model with its scorer, and what is recorded of it."""

    def __init__(self, spec: ModelSpec, study: Manifest, folder: RunFolder) -> None:
        section = eval_section(study)
        self.spec = spec
        threads = set_threads(section.threads)
        WATCH.begin()
        with measured() as span:
            self.loaded: LoadedModel = load_model(spec)
        model = self.loaded.model
        on_cpu = self.loaded.device == "cpu"
        self.mapped_weight_bytes = mapped_weight_bytes([*model.parameters(), *model.buffers()]) if on_cpu else 0
        self._load_s: float | None = span.real_s
        self.scorer = Scorer(self.loaded.model, _pad_token_id(self.loaded.tokenizer), warn=log.warning)
        self.probe = self.scorer.probe()
        self.prefix_token_id = _prefix_token_id(self.loaded.tokenizer)
        description = self.loaded.description
        self.effective: dict[str, Any] = {
            "device": description.device,
            "dtype": description.dtype,
            "quantization": description.quantization,
            "scoring_path": self.scorer.path,
            "threads": threads,
        }
        self._folder, self._file = folder, f"eval/{spec.name}/model.json"
        earlier = read_object(folder.path / self._file)
        self.batch_tokens = self._budget(section.batch_tokens, earlier)
        self.limits = MemoryLimits.read(earlier)
        self._decoding: DecodeProbe | None = None
        self._processors: tuple[str, ...] = ()
        self._written: dict[str, Any] = {}
        self._prompts: dict[str, Any] | None = None
        self.write()

    def tell_added(self, prompt_format: PromptFormat, system: str) -> None:
        """Say once, and note in ``model.json``, what the chat template makes of the prompts."""
        if self._prompts is not None:
            return
        self._prompts = prompt_format.to_record(system)
        if added := self._prompts.get("template_system"):
            log.warning("%s: its chat template adds to every prompt: %r", self.spec.name, _short(added))
        if self._prompts.get("thinking", "none") != "none":
            log.warning("%s: thinking is %s", self.spec.name, self._prompts["thinking"])

    def generator(self, saved: Saved | None) -> Generator:
        """A generator for one unit; how rows are decoded is found out once a model, and a resumed unit goes on so."""
        if self._decoding is None:
            self._decoding = probe_decoding(self.loaded.model)
            if self._decoding.path != "shared":
                log.warning(
                    "%s: generating on the %s path: %s", self.spec.name, self._decoding.path, self._decoding.reason
                )
        probe = self._decoding
        if saved and (path := saved.state.get("decoding_path")) in DECODING_PATHS and path != probe.path:
            probe = DecodeProbe(path, None, "as this unit was begun")
        model, tokenizer, length = self.loaded.model, self.loaded.tokenizer, self.loaded.max_length
        generator = Generator(model, tokenizer, warn=log.warning, max_length=length, probe=probe)
        generator.row_limit = self.limits.rows(saved, generator.row_limit)
        self._processors = generator.processors
        return generator

    def write(self) -> None:
        """Bring ``model.json`` up to date: what was loaded, and with which limits it runs."""
        record = self.loaded.description.to_record() | self.effective | {"probe": self.probe.to_builtin()}
        record |= {"chat_template": self.spec.chat_template, "batch_tokens": self.batch_tokens}
        record |= self.limits.to_record() | (self._prompts or {})
        if self._decoding:
            record["decoding"] = {**self._decoding.to_builtin(), "logits_processors": list(self._processors)}
        if record != self._written:
            self._folder.write_json(self._file, record)
            self._written = record

    def _budget(self, wanted: int | str, earlier: Mapping[str, Any]) -> int:
        """The run's own earlier measurement first: batches must not change between attempts."""
        if isinstance(wanted, int):
            return wanted
        known = earlier.get("batch_tokens")
        if isinstance(known, int) and known > 0:
            return known
        key = {**self.effective, "weights": self.loaded.description.revision, "id": self.spec.id}
        return batch_tokens_for(self.loaded.model, key, shared=self.scorer.path == "shared")

    def take_load_s(self) -> float | None:
        """Seconds of loading, for the first unit that asks."""
        taken, self._load_s = self._load_s, None
        return None if taken is None else round(taken, 6)

    def close(self) -> None:
        self.scorer.close()
        self.loaded.close()
        WATCH.end()


def _content(path: Path) -> bytes | None:
    """What a file holds; None for what cannot be read, which is then written anew."""
    try:
        return disk.read_whole(path)
    except OSError:
        return None


def _began_before_prompts_were_kept(saved: Saved | None) -> bool:
    """Whether a unit goes on that an older llmjobs began: its template wrote the thinking as it wished."""
    return saved is not None and bool(saved.effective) and "prompts" not in saved.effective


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"


def _pad_token_id(tokenizer: Any) -> int:
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return found if isinstance(found, int) else 0


def _prefix_token_id(tokenizer: Any) -> int | None:
    """What stands in for an empty context, as lm-eval has it: BOS, else EOS."""
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return found if isinstance(found, int) else None
