"""``eval:`` — which benchmarks, and how they are asked."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llmjobs.benchmarks.base import Benchmark, Options, OutputType
from llmjobs.benchmarks.custom import Columns, Custom, custom_class
from llmjobs.benchmarks.registry import benchmark_class, names
from llmjobs.manifest.endpoint_limits import EndpointLimits, SpendingLimit
from llmjobs.manifest.fields import DataPath, FileName, Revision, Section, ShortText, one_of, slug


class BenchmarkSpec(Section):
    """One benchmark: a built-in one by ``name``, or your own questions by ``file``."""

    name: FileName
    """Name of a built-in benchmark (`llmjobs benchmarks` lists them), or a name for your own. Required unless `file` is
    given."""
    subjects: list[ShortText] = Field(default_factory=lambda: ["all"], min_length=1)
    """Names of subjects or categories, or `all`."""
    num_fewshot: Annotated[int, Field(ge=0, le=100)] | None = None
    """Number of worked examples before each question. Default: the benchmark's own."""
    prompt: ShortText | None = None
    """Prompt form. Default: the first one that the benchmark lists."""
    output_type: OutputType | None = None
    """`loglikelihood` compares the log-likelihoods of the options; `generate_until` generates a reply and reads the
    answer from it."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only the first N questions of each subject."""
    data: DataPath | None = None
    """Local folder or file with the rows. Default: download them from the hub."""
    revision: Revision | None = None
    """Revision of the data set on the hub."""
    file: DataPath | None = None
    """Your own questions: a CSV, JSONL or parquet file."""
    question: ShortText | None = None
    """Column of `file` that contains the question."""
    choices: list[ShortText] | ShortText | None = None
    """Columns that contain the options, or one column that contains a list. Leave it out for short answers."""
    answer: ShortText | None = None
    """Column that contains the right answer: a letter, an index from 0, or the text of the option."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and isinstance(value.get("file"), str) and "name" not in value:
            return value | {"name": slug(value["file"].rsplit(".", 1)[0])}
        if isinstance(value, dict) and isinstance(value.get("subjects"), str):
            return value | {"subjects": [value["subjects"]]}
        return value

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.file is not None:
            return self._own_file()
        if own := [key for key in ("question", "choices", "answer") if getattr(self, key) is not None]:
            raise ValueError(f"{own[0]}: only applies to your own file; add file: or remove this key")
        one_of("name", self.name, names())
        found = benchmark_class(self.name)
        for subject in self.subjects:
            one_of("subjects", subject, ["all", *found.categories, *found.subjects])
        if self.prompt is not None:
            one_of("prompt", self.prompt, found.prompts)
        if self.output_type is not None:
            one_of("output_type", self.output_type, found.output_types)
        if self.num_fewshot is not None and self.num_fewshot > found.max_fewshot:
            raise ValueError(
                f"num_fewshot: {self.num_fewshot} is more than the {found.max_fewshot} that {self.name} has"
            )
        found(self.options())  # a benchmark refuses options that cannot be combined
        return self

    def _own_file(self) -> Self:
        if not self.question or not self.answer:
            raise ValueError("file: needs question: and answer: (names of its columns)")
        if self.subjects != ["all"]:
            raise ValueError("subjects: your own file counts as one subject; remove this key")
        if self.prompt is not None:
            one_of("prompt", self.prompt, Custom.prompts)
        if self.output_type is not None:
            raise ValueError("output_type: is derived from choices: for your own file; remove this key")
        return self

    def benchmark(self) -> type[Benchmark]:
        """The class that reads it; for the user's own file, one bound to the file's columns."""
        if self.file is None:
            return benchmark_class(self.name)
        choices = tuple(self.choices) if isinstance(self.choices, list) else self.choices
        columns = Columns(self.question or "", self.answer or "", choices)
        return custom_class(self.name, columns, self.num_fewshot or 0)

    def options(self) -> Options:
        """The effective options, with the benchmark's defaults filled in."""
        found = self.benchmark()
        shots = found.default_num_fewshot if self.num_fewshot is None else self.num_fewshot
        return Options(shots, self.prompt or found.prompts[0], self.output_type or found.output_types[0])

    def subject_names(self) -> list[str]:
        """The subjects in the given order, each once, with categories expanded."""
        found = self.benchmark()
        wanted: dict[str, None] = {}
        for subject in self.subjects:
            group = found.subjects if subject == "all" else found.categories.get(subject, (subject,))
            wanted.update(dict.fromkeys(group))
        return list(wanted)


class StopRule(Section):
    """When enough questions were asked. Give exactly one of `best`, `compare`, `lose` and `precision`."""

    best: Annotated[float, Field(ge=50, lt=100)] | None = None
    """The best model is known with this confidence, in percent, or the group of models that nobody beats."""
    compare: Annotated[float, Field(gt=0, lt=100)] | None = None
    """Every difference of this many points between two models is found or excluded, with 95% confidence."""
    lose: Annotated[float, Field(gt=0, lt=100)] | None = None
    """Of every model it is known whether it loses at most this many points to its reference, with 95% confidence."""
    precision: Annotated[float, Field(gt=0, le=50)] | None = None
    """The accuracy of every model is known within this many points, with 95% confidence."""
    reference: FileName | None = None
    """For `lose`: the model that the others are compared with. Default: the first one with the same `id`."""
    over: Literal["benchmark", "study"] = "benchmark"
    """`benchmark` applies the rule to each benchmark by itself, `study` to the questions of all benchmarks together."""

    @property
    def kind(self) -> Literal["precision", "compare", "best", "lose"]:
        """The rule that is given."""
        return next(name for name in STOP_RULES if getattr(self, name) is not None)

    @property
    def value(self) -> float:
        """Points, or percent of confidence."""
        return float(getattr(self, self.kind))

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [name for name in STOP_RULES if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise ValueError(
                f"give exactly one of {', '.join(sorted(STOP_RULES))} (given: {found}), as in {{best: 95}}"
            )
        if self.reference is not None and self.lose is None:
            raise ValueError("reference: only applies to lose:; remove it")
        return self

    def references(self, ids: Mapping[str, str]) -> dict[str, str]:
        """Return, by model name, the model that it must not lose to; ``ids`` are the manifest's, by name.

        Raises:
            ValueError: there is none.

        """
        if self.kind in ("best", "compare") and len(ids) < 2:
            raise ValueError(f"eval.stop.{self.kind}: compares models, but there is only one; use precision:")
        if self.kind != "lose":
            return {}
        if self.reference is not None:
            one_of("eval.stop.reference", self.reference, ids)
            return {name: self.reference for name in ids if name != self.reference}
        first: dict[str, str] = {}
        for name, id_ in ids.items():
            first.setdefault(id_, name)
        found = {name: first[id_] for name, id_ in ids.items() if first[id_] != name}
        if not found:
            raise ValueError(
                "eval.stop.lose: no two models have the same id; name the one to compare with in reference:"
            )
        return found


STOP_RULES: tuple[Literal["precision", "compare", "best", "lose"], ...] = ("precision", "compare", "best", "lose")


class EvalSection(Section):
    """Accuracy of every model on every benchmark."""

    benchmarks: list[BenchmarkSpec] = Field(min_length=1)
    """The benchmarks. A name alone uses the benchmark's defaults."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Random seed; only used by benchmarks that generate with a temperature above 0."""
    batch_tokens: Annotated[int, Field(ge=16, le=1 << 20)] | Literal["auto"] = "auto"
    """Tokens per forward pass. `auto` measures a good value once at the start."""
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """CPU threads. `auto` uses the physical cores."""
    stop: StopRule | None = None
    """Ask questions in random order, and stop when this rule is decided. Default: ask every question."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """How long to wait for an endpoint that sends no text, in seconds."""
    endpoints: dict[str, EndpointLimits] = Field(default_factory=dict)
    """Limits and prices, by name, of the models of `models:` that are endpoints."""
    spending: SpendingLimit = Field(default_factory=SpendingLimit)
    """Spending limit for the paid calls of a run."""
    currency: ShortText = "USD"
    """Currency of the prices and of `spending: {cost: …}`. It is only a label; nothing is converted."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        seen = [b.name.lower() for b in self.benchmarks]
        if twice := next((b.name for b in self.benchmarks if seen.count(b.name.lower()) > 1), None):
            raise ValueError(f"benchmarks: {twice!r} is given twice; keep one, or put the other into a second manifest")
        return self
