"""From a manifest's ``eval`` section to tasks: one model on one subject, with everything that decides its records."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llmjobs import file_operations
from llmjobs.benchmarks.base import Benchmark, Doc, Shots
from llmjobs.benchmarks.rows import RowSet, load_rows
from llmjobs.calls.spending import Rate, Spending
from llmjobs.engines.adapters import settings_of
from llmjobs.engines.locate import Located
from llmjobs.errors import DataError, ManifestError, ModelError, plain_reason
from llmjobs.manifest import BenchmarkSpec, EvalSection, Manifest, ModelSpec
from llmjobs.work.folder import Revisions, RunFolder
from llmjobs.work.journal import encode
from llmjobs.work.units import Unit


@dataclass(frozen=True)
class SubjectData:
    """The rows of one subject, read once for all models; ``error`` if they could not be read."""

    spec: BenchmarkSpec
    benchmark: Benchmark
    subject: str
    test: RowSet | None
    fewshot: RowSet | None
    error: str | None = None

    @property
    def key(self) -> str:
        """``mmlu.astronomy``: name of the docs file and of the unit's folder."""
        return f"{self.spec.name}.{self.subject}"

    @property
    def count(self) -> int:
        """Questions that will be asked."""
        rows = len(self.test.rows) if self.test else 0
        return min(rows, self.spec.limit or rows)

    @cached_property
    def docs(self) -> list[Doc]:
        """The questions, in the order of the rows.

        Raises:
            DataError: a row does not have the benchmark's format.

        """
        assert self.test is not None
        docs = []
        for index, row in enumerate(self.test.rows[: self.count]):
            try:
                docs.append(self.benchmark.doc(row, index, self.subject))
            except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
                raise DataError(
                    f"{self.test.origin}: row {index + 1} does not have the format of {self.spec.name}: "
                    f"{plain_reason(error)}; see 'llmjobs benchmarks'"
                ) from None
        return docs

    @cached_property
    def shots(self) -> Shots:
        """The worked examples before each question."""
        rows = self.fewshot.rows if self.fewshot else []
        if len(rows) < self.benchmark.options.num_fewshot:
            raise DataError(
                f"{self.key}: num_fewshot is {self.benchmark.options.num_fewshot}, but there are {len(rows)} rows"
            )
        return self.benchmark.shots(rows, self.subject)


@dataclass(frozen=True)
class Task:
    """One unit of the eval job."""

    model: ModelSpec
    located: Located | None
    data: SubjectData
    error: str | None
    """Why it cannot run, if that is known before anything is loaded."""

    @property
    def path(self) -> str:
        """Folder of its unit below the run."""
        return f"eval/{self.model.name}/{self.data.key}"

    def unit(self, seed: int) -> Unit:
        """The unit that the runner sees."""
        spec, bench = self.model, self.data.benchmark
        declared: dict[str, Any] = {
            "model": spec.id,
            "revision": self.located.revision if self.located else None,
            "engine_asked": spec.engine,
            "device_asked": spec.device,
            "dtype_asked": spec.dtype,
            "quantization_asked": spec.quantization,
            **settings_of(spec, self.located),
            "chat_template": spec.chat_template,
            "fewshot_as_turns": spec.fewshot_as_turns if spec.chat_template else None,
            "system": spec.system if spec.chat_template else None,
            "thinking_asked": spec.thinking if spec.chat_template else None,
            "benchmark": self.data.spec.name,
            "benchmark_version": bench.version,
            "subject": self.data.subject,
            "prompt": bench.options.prompt,
            "output_type": bench.output_type(self.data.subject),
            "num_fewshot": bench.options.num_fewshot,
            "questions": self.data.count,
            "data_hash": self.data.test.hash if self.data.test else None,
            "fewshot_hash": self.data.fewshot.hash if self.data.fewshot else None,
            "seed": seed,
        }
        return Unit(self.path, declared, spec.name, self.data.count, stays=bool(spec.endpoint))


def make_tasks(study: Manifest, revisions: Revisions) -> list[Task]:
    """All tasks in order: model by model, benchmark by benchmark. What cannot run carries its error."""
    section = eval_section(study)
    data = [
        _load(spec, spec.benchmark()(spec.options()), subject, revisions)
        for spec in section.benchmarks
        for subject in spec.subject_names()
    ]
    tasks = []
    for model in study.models:
        located, error = revisions.locate(model)
        tasks += [Task(model, located, one, error or one.error) for one in data]
    return tasks


def eval_section(study: Manifest) -> EvalSection:
    """The manifest's ``eval`` section.

    Raises:
        ManifestError: it has none.

    """
    if study.eval is None:
        raise ManifestError(f"{study.name}: the manifest has no 'eval:' section; add one with the benchmarks to run")
    return study.eval


def _load(spec: BenchmarkSpec, benchmark: Benchmark, subject: str, revisions: Revisions) -> SubjectData:
    try:
        test = _rows(spec, benchmark, subject, "test", revisions)
        fewshot = None
        if benchmark.options.num_fewshot and benchmark.fewshot_split:
            fewshot = _rows(spec, benchmark, subject, benchmark.fewshot_split, revisions)
    except (DataError, ModelError) as error:
        return SubjectData(spec, benchmark, subject, None, None, str(error))
    return SubjectData(spec, benchmark, subject, test, fewshot)


def _rows(spec: BenchmarkSpec, benchmark: Benchmark, subject: str, split: str, revisions: Revisions) -> RowSet:
    local = spec.data or spec.file
    if local or benchmark.hub is None:
        return load_rows(type(benchmark), subject, split, data=local, revision=None)
    hub = benchmark.hub.path
    revision = revisions.known_commit("dataset", hub, spec.revision) or spec.revision
    found = load_rows(type(benchmark), subject, split, data=None, revision=revision)
    revisions.record("dataset", hub, spec.revision, found.revision)
    return found


def with_limit(study: Manifest, limit: int) -> Manifest:
    """Return the study with at most ``limit`` questions per subject."""
    section = eval_section(study)
    benchmarks = [b.model_copy(update={"limit": min(limit, b.limit or limit)}) for b in section.benchmarks]
    return study.model_copy(update={"eval": section.model_copy(update={"benchmarks": benchmarks})})


def write_docs(folder: RunFolder, data: SubjectData) -> None:
    """Write the questions of a subject below ``docs/``, unless the same ones are there; every model asks these."""
    if data.test is None:
        return
    lines = b"".join(encode(docs_record(doc, data.test.hash)) for doc in data.docs)
    relative = f"docs/{data.key}.jsonl"
    try:
        known = file_operations.read_whole(folder.path / relative)
    except OSError:  # missing or unreadable, so it is written again
        known = None
    if known != lines:
        folder.write_text(relative, lines.decode())


def docs_record(doc: Doc, digest: str) -> Mapping[str, Any]:
    """One line of ``docs/BENCHMARK.SUBJECT.jsonl``: the question as people read it."""
    return {
        "doc_id": doc.doc_id,
        "question": doc.question,
        "choices": list(doc.choices),
        "gold": doc.gold,
        "hash": digest,
    }


def make_spending(section: EvalSection) -> Spending:
    """Prices and limits of a study, nothing spent yet."""
    prices = {name: limits.price for name, limits in section.endpoints.items() if limits.price}
    rates = {name: Rate(price.prompt, price.completion) for name, price in prices.items()}
    limit = section.spending
    return Spending(rates, tokens=limit.tokens, cost=limit.cost, currency=section.currency, section="eval")
