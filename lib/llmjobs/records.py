"""What jobs write and the report reads: a line of ``records.jsonl`` for each job, and a cell of the timing matrix.

Each kind is typed here once. Jobs write these, summaries and the report read them; the order of the keys is the order
in the file. The runner adds ``step`` to every line. ``NotRequired`` keys are left out where they do not apply, and in
runs of older versions.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Any, NotRequired, TypedDict, TypeVar, cast, get_args, get_origin, get_type_hints

from llmjobs.statistics.intervals import Interval, wilson


class EvalDetails(TypedDict, total=False):
    """What a record of an eval holds only where it applies."""

    num_fewshot: int
    """Shots that fitted into the prompt."""
    truncated: bool
    """The beginning of the prompt was cut off."""
    shortened: bool
    """The reply had less room than the benchmark gives it."""
    joined: bool
    """The tokenizer joins the end of the prompt with the answer."""
    thinking: str
    thinking_tokens: int | None
    thinking_cut: bool
    """The thinking had used up its tokens and was ended."""
    error: str
    cut_tokens: int
    """Tokens of the prompt that were cut off to make room for the reply."""
    text: str
    """A generated reply, without its thinking."""
    finish_reason: str
    new_tokens: int


class EvalRecord(EvalDetails):
    """One model's answer to one question of a benchmark."""

    model: str
    benchmark: str
    subject: str
    doc_id: int
    gold: str
    prediction: str | None
    """None where no answer could be read, or there is none."""
    correct: bool | None
    """None in an error: an error is never a wrong answer."""
    loglikelihoods: list[float] | None
    """Of each option in nats, rounded to 1e-6; None for generated answers."""
    status: str
    """``ok``, ``unparsed`` (no answer could be read from the reply) or ``error``."""
    metrics: dict[str, float]


class CellRecord(EvalRecord):
    """An answer of one repetition of a matrix cell; in the file both of its own keys come first."""

    cell: str
    repetition: int


class TurnAsked(TypedDict):
    """What is known of a turn before it is asked."""

    model: str
    set: str
    conversation: str
    turn: int
    """From 1."""
    kind: str | None
    distance: int | None
    """Turns between telling a fact and asking for it; None where nothing is asked for."""
    strategy: str
    history: bool
    context: int | None
    question: str


class TurnOutcome(TypedDict):
    """What came of a turn."""

    answer: str | None
    expected: str | None
    correct: bool | None
    """None where nothing is expected, or there is no answer."""
    status: str
    """``ok`` or ``error``."""
    tokens_sent: int | None
    tokens_dropped: int | None
    tokens_side: int | None
    tokens_new: int | None
    tokens_counted: str | None
    """Who counted: ``tokenizer``, ``server`` or ``estimate``."""
    finish_reason: str | None
    thinking: NotRequired[str]
    thinking_tokens: NotRequired[int | None]
    error: NotRequired[str]


class TurnRecord(TurnAsked, TurnOutcome):
    """One turn of a scripted conversation."""


class AnswerRecord(TypedDict):
    """An agent's answers to the turns of one MT-Bench question; the lists have an entry per answered turn."""

    model: str
    question_id: str
    category: str
    questions: list[str]
    turns: list[str]
    status: str
    """``ok`` or ``error``."""
    error: NotRequired[str]
    final: NotRequired[bool]
    """Another try would fail too: the prompt does not fit."""
    imported: NotRequired[bool]
    """Read from a file; the keys below are absent then."""
    tokens_sent: NotRequired[list[int]]
    tokens_dropped: NotRequired[list[int]]
    tokens_side: NotRequired[list[int]]
    tokens_new: NotRequired[list[int]]
    tokens_counted: NotRequired[list[str]]
    finish_reasons: NotRequired[list[str]]
    thinking: NotRequired[list[str | None]]
    thinking_tokens: NotRequired[list[int | None]]
    temperature: NotRequired[float]
    seed: NotRequired[int]
    history: NotRequired[bool]
    strategy: NotRequired[str]


class JudgeReply(TypedDict, total=False):
    """What a judge replied to one prompt; a single judgment holds these keys itself, a comparison once per order."""

    judgment: str | None
    asked: int
    """How often it was asked: twice where its first reply could not be read."""
    earlier: list[str]
    prompt_tokens: int
    new_tokens: int
    tokens_counted: str
    status: str
    """``ok``, ``unread``, ``error`` or ``not_judged``."""
    thinking: list[str | None]
    error: str
    final: bool
    verdict: str | None
    """In a comparison's order: ``A``, ``B`` or ``tie``."""


class Judgment(TypedDict):
    """One judgment by a judge: of one agent (``single``, with ``model``) or of two (``pairwise``)."""

    judge: str
    mode: str
    question_id: str
    category: str
    turn: int
    """From 1."""
    prompt: str | None
    status: str
    """As in :class:`JudgeReply`; the worse one of a comparison's two."""
    why: NotRequired[str]
    """Why there was nothing to judge."""
    model: NotRequired[str]
    rating: NotRequired[float | None]
    single_brackets: NotRequired[bool]
    """The rating was read by the weaker rule."""
    judgment: NotRequired[str | None]
    asked: NotRequired[int]
    earlier: NotRequired[list[str]]
    prompt_tokens: NotRequired[int]
    new_tokens: NotRequired[int]
    tokens_counted: NotRequired[str]
    thinking: NotRequired[list[str | None]]
    error: NotRequired[str]
    final: NotRequired[bool]
    first: NotRequired[str]
    second: NotRequired[str]
    winner: NotRequired[str | None]
    """``first``, ``second``, ``tie``; None without two verdicts."""
    flipped: NotRequired[bool | None]
    """Whether the order of the two answers changed the verdict."""
    orders: NotRequired[list[JudgeReply]]


# A line from disk is checked against its kind before anybody uses it.

Kind = TypeVar("Kind")


def as_record(line: Mapping[str, Any], kind: Callable[..., Kind]) -> Kind:
    """Return ``line`` as a record of ``kind``, one of the classes above.

    Raises:
        ValueError: a key is missing, or its value is of another type.

    """
    for key, (is_required, is_right) in _keys(kind).items():
        if key in line:
            if not is_right(line[key]):
                raise ValueError(f"{key}: not what this kind of record holds")
        elif is_required:
            raise ValueError(f"{key}: missing")
    return cast(Kind, line)


def as_records(lines: Iterable[Mapping[str, Any]], kind: Callable[..., Kind]) -> list[Kind]:
    """Return lines that this version's own reader has verified as records of ``kind``."""
    return [cast(Kind, line) for line in lines]


@cache
def _keys(kind: Any) -> dict[str, tuple[bool, Callable[[Any], bool]]]:
    required: frozenset[str] = kind.__required_keys__
    return {key: (key in required, _check(hint)) for key, hint in get_type_hints(kind).items()}


def _check(hint: Any) -> Callable[[Any], bool]:
    """Return the test whether a value from JSON is of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType:
        tests = [_check(one) for one in arguments]
        return lambda value: any(test(value) for test in tests)
    if origin is list:
        item = _check(arguments[0])
        return lambda value: isinstance(value, list) and all(map(item, value))
    if origin is dict:
        item = _check(arguments[1])
        return lambda value: isinstance(value, dict) and all(map(item, value.values()))
    if hint in (int, str, bool, NoneType):
        return lambda value: type(value) is hint
    if hint is float:
        return lambda value: type(value) in (int, float) and math.isfinite(value)
    return lambda value: isinstance(value, dict)


# A cell of the timing matrix: `cell.json`, the summary, the grid on the terminal and the report's chapter.

DONE, KILLED, FAILED, UNAVAILABLE, MISSING = "done", "killed", "failed", "unavailable", "missing"
"""How a cell ended; ``missing``: it has not run to its end yet."""
CONFIDENCE = "95% Wilson"
AnswerKey = tuple[str, str, str]
"""Benchmark, subject, doc_id."""


@dataclass(frozen=True)
class Spread:
    """A figure over the ``n`` repetitions of a cell: median, lowest, highest."""

    median: float
    low: float
    high: float
    n: int = 1

    @classmethod
    def from_json(cls, value: Any) -> "Spread | None":
        """Read a spread, or a plain number; None for anything else."""
        if isinstance(value, dict):
            median = _number(value.get("median"))
            if median is None:
                return None
            low, high, n = (_number(value.get(name)) for name in ("low", "high", "n"))
            return cls(median, median if low is None else low, median if high is None else high, int(n or 1))
        number = _number(value)
        return None if number is None else cls(number, number, number)


@dataclass(frozen=True)
class CellResult:
    """One cell of the grid as it ended: every figure over its repetitions, and the answers of its first one.

    Cells that never ran have no figures; what they were asked for stands in their place.
    """

    row: str
    """The name that people read: ``CPU 4-bit``."""
    cell: str
    """The name of its folder."""
    model: str
    device: str
    quantization: str
    dtype: str
    threads: int | str
    batch_size: int
    status: str
    reason: str | None = None
    repetitions: int = 0
    """Those that have a result."""
    architecture: str | None = None
    parameters: int | None = None
    revision: str | None = None
    scoring_path: str | None = None
    errors: int = 0
    """Questions that ended in an error."""
    repetitions_agree: bool = True
    """Whether all repetitions gave the same answers."""
    measures: Mapping[str, Spread | None] = field(default_factory=dict)
    """Figures by the names in ``docs/measuring.md``; None where nothing was measured."""
    by_context: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Prefill and decode at each context length."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a figure is missing, by its name."""
    remarks: Sequence[str] = field(default_factory=list)
    precision: str | None = None
    """As the manifest lists it; None where quantization and number format were varied by themselves."""
    is_reference: bool = False
    """Whether the other precisions of its model are compared with it."""
    engine: str = "transformers"
    answers: Mapping[AnswerKey, tuple[str | None, bool]] = field(default_factory=dict)
    """The answer to each question, and whether it is right; they lie in ``records.jsonl``, not in ``cell.json``."""

    def value(self, name: str) -> float | None:
        """Return the median of a measure, or None where it was not measured."""
        found = self.measures.get(name)
        return None if found is None else found.median

    @property
    def cpu_s(self) -> float | None:
        """User and system time together."""
        user_s = self.value("user_s")
        return None if user_s is None else user_s + (self.value("system_s") or 0.0)

    @property
    def memory_bytes(self) -> float | None:
        """Memory that the cell needs: the accelerator's where it is on one, else what must stay of the process."""
        return self.value("peak_device_bytes") or self.value("needed_bytes") or self.value("peak_rss_bytes")

    @property
    def accuracy(self) -> Interval | None:
        """Share right with Wilson's interval, or None without answers."""
        if not self.answers:
            return None
        right = sum(correct for _, correct in self.answers.values())
        return Interval(right / len(self.answers), *wilson(right, len(self.answers)))

    def to_json(self) -> dict[str, Any]:
        """The content of ``cell.json``; a cell that never ran has no figures."""
        head = {name: getattr(self, name) for name in _ASKED}
        if self.precision:
            head |= {name: getattr(self, name) for name in ("precision", "is_reference", "engine")}
        state = {name: getattr(self, name) for name in ("status", "reason", "repetitions")}
        if not self.repetitions:
            return head | state
        return {
            **head,
            **{name: getattr(self, name) for name in ("architecture", "parameters", "revision", "scoring_path")},
            **state,
            "accuracy": self._accuracy(),
            "repetitions_agree": self.repetitions_agree,
            "measures": {name: spread and asdict(spread) for name, spread in self.measures.items()},
            "by_context": list(self.by_context),
            "reasons": dict(self.reasons),
            "remarks": list(self.remarks),
        }

    def _accuracy(self) -> dict[str, Any]:
        found, n = self.accuracy, len(self.answers)
        if found is None:
            return {"n": 0, "correct": 0, "acc": None, "low": None, "high": None, "errors": self.errors}
        figures = {"acc": round(found.value, 6), "low": round(found.low, 6), "high": round(found.high, 6)}
        right = sum(correct for _, correct in self.answers.values())
        return {"n": n, "correct": right, **figures, "errors": self.errors, "interval": CONFIDENCE}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], folder: str, records: Iterable[Mapping[str, Any]]) -> "CellResult":
        """Read a cell of any version: ``raw`` is its ``cell.json``, ``records`` the lines of its first repetition."""
        accuracy, threads = _mapping(raw.get("accuracy")), raw.get("threads")
        parameters = _number(raw.get("parameters"))
        texts = {name: str(raw[name]) if raw.get(name) else None for name in ("reason", *_LOADED)}
        return cls(
            row=str(raw.get("row") or raw.get("cell") or folder),
            cell=str(raw.get("cell") or folder),
            model=str(raw.get("model") or ""),
            device=str(raw.get("device") or ""),
            quantization=str(raw.get("quantization") or "none"),
            dtype=str(raw.get("dtype") or ""),
            threads=threads if isinstance(threads, int) else "auto",
            batch_size=int(_number(raw.get("batch_size")) or 1),
            status=str(raw.get("status") or DONE),
            **texts,
            repetitions=int(_number(raw.get("repetitions")) or 0),
            parameters=None if parameters is None else int(parameters),
            errors=int(_number(accuracy.get("errors")) or 0),
            repetitions_agree=raw.get("repetitions_agree") is not False,
            measures={name: Spread.from_json(value) for name, value in _mapping(raw.get("measures")).items()},
            by_context=[_mapping(row) for row in _list(raw.get("by_context"))],
            reasons={name: str(why) for name, why in _mapping(raw.get("reasons")).items()},
            remarks=[str(remark) for remark in _list(raw.get("remarks"))],
            precision=str(raw["precision"]) if raw.get("precision") else None,
            is_reference=raw.get("is_reference") is True,
            engine=str(raw.get("engine") or "transformers"),
            answers=answers_of(records),
        )


_LOADED = ("architecture", "revision", "scoring_path")
_ASKED = ("row", "cell", "model", "device", "quantization", "dtype", "threads", "batch_size")


def answers_of(records: Iterable[Mapping[str, Any]]) -> dict[AnswerKey, tuple[str | None, bool]]:
    """Return the answers of a cell's records; a question in error has none."""
    return {
        (str(line.get("benchmark", "")), str(line.get("subject", "")), str(line.get("doc_id"))): (
            line.get("prediction"),
            bool(line["correct"]),
        )
        for line in records
        if line.get("correct") is not None
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    """Return a finite number, None for anything else."""
    return value if type(value) in (int, float) and math.isfinite(value) else None
