"""The contract of a benchmark: where its rows come from, how an example reads, how an answer is graded.

A benchmark is one file with one subclass of :class:`Benchmark`. It only sees plain dictionaries (rows) and strings;
other modules deal with tokens, models and batches.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

OutputType = Literal["loglikelihood", "generate_until"]
Row = Mapping[str, Any]
T = TypeVar("T")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class HubDataset:
    """Where the rows are on the hub: parquet data sets only, no loading scripts."""

    path: str
    config: str | None = None
    """Name of the configuration; ``{subject}`` in it is replaced by the subject."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """Maps the benchmark's split names (``test``, ``fewshot``) to those of the data set."""


@dataclass(frozen=True)
class Example:
    """One example, worked or asked: with its answer, it reads ``text`` + ``target``."""

    text: str
    target: str


@dataclass(frozen=True)
class Doc:
    """One question as the model sees it, apart from the shots.

    ``questions`` and ``continuations`` have one entry per option; if all options share one text, ``questions`` has a
    single entry. For generation ``continuations`` is empty.
    """

    doc_id: int
    subject: str
    question: str
    """Readable text for ``--show`` and the report."""
    choices: tuple[str, ...]
    gold: str
    """A letter for multiple choice, the answer's text for generation."""
    questions: tuple[str, ...]
    continuations: tuple[str, ...]
    golds: tuple[str, ...] = ()
    """Letters of all right options, if a benchmark has several (TruthfulQA's MC2)."""


@dataclass(frozen=True)
class Shots:
    """What comes before the question: a description and worked examples, each followed by ``delimiter``."""

    description: str = ""
    examples: tuple[Example, ...] = ()
    delimiter: str = "\n\n"

    def render(self, count: int) -> str:
        """Return the description and the first ``count`` examples as text."""
        return self.description + "".join(e.text + e.target + self.delimiter for e in self.examples[:count])


@dataclass(frozen=True)
class Grade:
    """The result of one doc: the chosen option or text, whether it is right, and each metric's value (name → 0…1)."""

    prediction: str | None
    correct: bool
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Generation:
    """How a reply is generated: at most ``max_new_tokens``, stopping at any of ``stop``."""

    stop: tuple[str, ...]
    max_new_tokens: int
    temperature: float = 0.0


@dataclass(frozen=True)
class Options:
    """What a manifest says about a benchmark, with the benchmark's defaults filled in."""

    num_fewshot: int
    prompt: str
    output_type: OutputType


class Benchmark(ABC):
    """Base of every benchmark. Class attributes are facts; methods are pure functions of rows."""

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    """Raised whenever a prompt or a score changes; part of every fingerprint."""
    title: ClassVar[str]
    source: ClassVar[str]
    """The paper or page that defines it."""
    hub: ClassVar[HubDataset | None] = None
    subjects: ClassVar[tuple[str, ...]] = ("all",)
    categories: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Named groups of subjects that a manifest may ask for."""
    prompts: ClassVar[tuple[str, ...]] = ("lm-eval",)
    """Allowed prompt forms; the first is the default."""
    output_types: ClassVar[tuple[OutputType, ...]] = ("loglikelihood",)
    """Allowed output types; the first is the default."""
    max_fewshot: ClassVar[int] = 25
    default_num_fewshot: ClassVar[int] = 0
    primary_metric: ClassVar[str] = "acc"
    test_rows: ClassVar[int]
    """Rows of the published test split, all subjects together."""
    fewshot_split: ClassVar[str | None] = "fewshot"
    target_delimiter: ClassVar[str] = " "
    """What every target and continuation begins with. A chat template leaves it out, as lm-eval does."""
    csv_columns: ClassVar[tuple[str, ...]] = ()
    """Columns of the published CSV files, if these have no header."""
    shares_file: ClassVar[bool] = False
    """Whether questions and shots are parts of one file (for a user's own file)."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @abstractmethod
    def doc(self, row: Row, doc_id: int, subject: str) -> Doc:
        """Read one test row.

        Raises:
            KeyError, ValueError, TypeError: the row does not have this benchmark's format; the caller adds where it is.

        """

    @abstractmethod
    def shots(self, rows: Sequence[Row], subject: str) -> Shots:
        """Make the description and the ``num_fewshot`` worked examples from the few-shot split's rows, in order."""

    @abstractmethod
    def grade(self, doc: Doc, loglikelihoods: Sequence[float], is_greedy: Sequence[bool] = ()) -> Grade:
        """Grade a doc from the log-likelihood of every continuation (natural log, summed over its tokens).

        ``is_greedy`` says for each continuation whether greedy decoding would produce it; only LAMBADA uses this.
        """

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Convert a row of any published form to the one that ``doc`` and ``shots`` read, and drop other columns.

        Raises:
            KeyError, ValueError, TypeError: the row does not have this benchmark's format.

        """
        return raw

    @classmethod
    def belongs(cls, raw: Row, subject: str) -> bool:
        """Whether a row belongs to ``subject``; for tables that hold several subjects (MMLU-Pro)."""
        return True

    @classmethod
    def part(cls, rows: list[T], split: str) -> list[T]:
        """Return the rows of one split, if both splits share a file."""
        return rows

    @classmethod
    def own_rows(cls, subject: str, split: str) -> list[Row] | None:
        """Return rows that need neither the hub nor a folder, or None."""
        return None

    def output_type(self, subject: str) -> OutputType:
        """How a subject is answered, if the benchmark mixes both ways."""
        return self.options.output_type

    @classmethod
    def aggregate(cls, metric: str, values: Sequence[float]) -> float:
        """Reduce a metric's values over docs to one number: their mean, unless the benchmark defines something else."""
        return sum(values) / len(values)

    def generation(self, doc: Doc) -> Generation:
        """How to generate a reply; only called if ``generate_until`` is allowed."""
        raise TypeError(f"{self.name} is not scored by generation")

    def grade_text(self, doc: Doc, text: str) -> Grade:
        """Grade a generated reply; ``prediction`` is None if no answer can be read."""
        raise TypeError(f"{self.name} is not scored by generation")


def argmax(values: Sequence[float]) -> int:
    """Index of the first largest value, like numpy's ``argmax``."""
    return max(range(len(values)), key=values.__getitem__)


def letter(index: int) -> str:
    """Name an option: A to Z, then AA, AB and so on."""
    return LETTERS[index] if index < 26 else letter(index // 26 - 1) + LETTERS[index % 26]
