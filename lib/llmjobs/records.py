"""The records that jobs write and the report reads: the lines of ``records.jsonl``, and the cells of the timing matrix.

Each kind is typed once, here. The order of the keys is the order in the file. The runner adds ``step`` to every line.
``NotRequired`` keys are missing if they do not apply, and in runs of older versions.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Any, NotRequired, TypedDict, TypeVar, cast, get_args, get_origin, get_type_hints

from llmjobs.statistics.intervals import ACCURACY_INTERVAL, Interval, accuracy_interval


class EvalDetails(TypedDict, total=False):
    """Keys of an eval record that only some records have."""

    num_fewshot: int
    """Number of shots that fitted into the prompt."""
    truncated: bool
    """The beginning of the prompt was cut off."""
    shortened: bool
    """The reply had less room than the benchmark asks for."""
    joined: bool
    """The tokenizer joined the end of the prompt with the answer."""
    thinking: str
    thinking_tokens: int | None
    thinking_cut: bool
    """The thinking used up its tokens and was ended."""
    error: str
    cut_tokens: int
    """Number of prompt tokens that were cut off to make room for the reply."""
    text: str
    """A generated reply, without its thinking."""
    finish_reason: str
    new_tokens: int | None
    """None if a server did not count them."""
    temporary: bool
    """The call to the server failed; the next run asks again."""


class EvalRecord(EvalDetails):
    """One model's answer to one question of a benchmark."""

    model: str
    benchmark: str
    subject: str
    doc_id: int
    gold: str
    prediction: str | None
    """None if no answer could be read, or there is none."""
    correct: bool | None
    """None for an error: an error is never a wrong answer."""
    loglikelihoods: list[float] | None
    """Log-likelihood of each option in nats, rounded to 1e-6; None for generated answers."""
    status: str
    """``ok``, ``unparsed`` (no answer could be read from the reply) or ``error``."""
    metrics: dict[str, float]


class CellRecord(EvalRecord):
    """An answer of one repetition of a matrix cell; in the file, the cell's two keys come first."""

    cell: str
    repetition: int


class TurnAsked(TypedDict):
    """What is known about a turn before it is asked."""

    model: str
    set: str
    conversation: str
    turn: int
    """Counted from 1."""
    kind: str | None
    distance: int | None
    """Turns between stating a fact and asking about it; None if nothing is asked."""
    strategy: str
    history: bool
    context: int | None
    question: str


class TurnOutcome(TypedDict):
    """The result of a turn."""

    answer: str | None
    expected: str | None
    correct: bool | None
    """None if nothing is expected, or there is no answer."""
    status: str
    """``ok`` or ``error``."""
    tokens_sent: int | None
    tokens_dropped: int | None
    tokens_side: int | None
    tokens_new: int | None
    tokens_counted: str | None
    """Source of the token counts: ``tokenizer``, ``server`` or ``estimate``."""
    finish_reason: str | None
    thinking: NotRequired[str]
    thinking_tokens: NotRequired[int | None]
    thinking_cut: NotRequired[bool]
    error: NotRequired[str]


class TurnRecord(TurnAsked, TurnOutcome):
    """One turn of a scripted conversation."""


class AnswerRecord(TypedDict):
    """An agent's answers to the turns of one MT-Bench question; the lists have one entry per answered turn."""

    model: str
    question_id: str
    category: str
    questions: list[str]
    turns: list[str]
    status: str
    """``ok`` or ``error``."""
    error: NotRequired[str]
    final: NotRequired[bool]
    """Another try would fail too, because the prompt does not fit."""
    imported: NotRequired[bool]
    """The answer was read from a file; the keys below are missing then."""
    tokens_sent: NotRequired[list[int]]
    tokens_dropped: NotRequired[list[int]]
    tokens_side: NotRequired[list[int]]
    tokens_new: NotRequired[list[int]]
    tokens_counted: NotRequired[list[str]]
    finish_reasons: NotRequired[list[str]]
    thinking: NotRequired[list[str | None]]
    thinking_tokens: NotRequired[list[int | None]]
    thinking_cut: NotRequired[list[bool]]
    temperature: NotRequired[float]
    seed: NotRequired[int]
    history: NotRequired[bool]
    strategy: NotRequired[str]


class JudgeReply(TypedDict, total=False):
    """A judge's reply to one prompt. A single judgment contains these keys; a comparison has them once per order."""

    judgment: str | None
    asked: int
    """How often it was asked: twice if the first reply could not be read."""
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
    """The verdict in this order: ``A``, ``B`` or ``tie``."""


class Judgment(TypedDict):
    """One judgment by a judge: of one agent (``single``, with ``model``) or of two (``pairwise``)."""

    judge: str
    mode: str
    question_id: str
    category: str
    turn: int
    """Counted from 1."""
    prompt: str | None
    status: str
    """As in :class:`JudgeReply`; the worse of a comparison's two."""
    why: NotRequired[str]
    """Why there was nothing to judge."""
    model: NotRequired[str]
    rating: NotRequired[float | None]
    single_brackets: NotRequired[bool]
    """The rating was read by the more lenient rule."""
    judgment: NotRequired[str | None]
    asked: NotRequired[int]
    earlier: NotRequired[list[str]]
    prompt_tokens: NotRequired[int]
    new_tokens: NotRequired[int]
    tokens_counted: NotRequired[str]
    thinking: NotRequired[list[str | None]]
    thinking_cut: NotRequired[bool]
    error: NotRequired[str]
    final: NotRequired[bool]
    first: NotRequired[str]
    second: NotRequired[str]
    winner: NotRequired[str | None]
    """``first``, ``second`` or ``tie``; None without two verdicts."""
    flipped: NotRequired[bool | None]
    """Whether the order of the two answers changed the verdict."""
    orders: NotRequired[list[JudgeReply]]


Kind = TypeVar("Kind")


def as_record(line: Mapping[str, Any], kind: Callable[..., Kind]) -> Kind:
    """Return ``line`` as a record of ``kind``, one of the classes above.

    Raises:
        ValueError: a key is missing, or its value is of another type.

    """
    for key, (is_required, is_right) in _keys(kind).items():
        if key in line:
            if not is_right(line[key]):
                raise ValueError(f"{key}: not a valid value for this kind of record")
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


# A cell of the timing matrix, as in `cell.json`, the summary, the terminal's table and the report.

DONE, KILLED, FAILED, UNAVAILABLE, MISSING = "done", "killed", "failed", "unavailable", "missing"
"""How a cell ended; ``missing``: it has not finished yet."""
AnswerKey = tuple[str, str, str]
"""Benchmark, subject, doc_id."""


@dataclass(frozen=True)
class Spread:
    """A measurement over the ``n`` repetitions of a cell: median, lowest, highest."""

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
    """The result of one cell: each measurement over its repetitions, and the answers of the first one.

    A cell that never ran has no measurements, and its settings are the requested ones.
    """

    row: str
    """The name for readers: ``CPU 4-bit``."""
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
    """Number of repetitions with a result."""
    architecture: str | None = None
    parameters: int | None = None
    revision: str | None = None
    scoring_path: str | None = None
    errors: int = 0
    """Number of questions that ended in an error."""
    repetitions_agree: bool = True
    """Whether all repetitions gave the same answers."""
    measures: Mapping[str, Spread | None] = field(default_factory=dict)
    """Measurements by the names in ``docs/measuring.md``; None if not measured."""
    by_context: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Prefill and decode at each context length."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a measurement is missing, by its name."""
    remarks: Sequence[str] = field(default_factory=list)
    precision: str | None = None
    """As the manifest lists it; None if the manifest lists quantizations and number formats instead."""
    is_reference: bool = False
    """Whether the other precisions of its model are compared with it."""
    engine: str = "transformers"
    divergence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """How far the distribution of the next token is from the reference's, by source (``text``, ``prompts``): the number
    of ``positions`` and ``texts``; ``mean``, ``median`` and ``p99`` of the KL divergence in nats, the share
    ``same_top`` and ``perplexity_ratio``, each a ``value`` with ``low`` and ``high``."""
    divergence_reason: str | None = None
    """Why there is none."""
    tokens_differ: str | None = None
    """How many texts its tokenizer splits differently than the reference's tokenizer; None if that was not checked."""
    answers: Mapping[AnswerKey, tuple[str | None, bool]] = field(default_factory=dict)
    """The answer to each question, and whether it is right. These are in ``records.jsonl``, not in ``cell.json``."""

    def value(self, name: str) -> float | None:
        """Return the median of a measurement, or None if it was not taken."""
        found = self.measures.get(name)
        return None if found is None else found.median

    @property
    def cpu_s(self) -> float | None:
        """User and system time together."""
        user_s = self.value("user_s")
        return None if user_s is None else user_s + (self.value("system_s") or 0.0)

    @property
    def memory_bytes(self) -> float | None:
        """Memory that the cell needs: the accelerator's if it uses one, otherwise what the process cannot release."""
        return self.value("peak_device_bytes") or self.value("needed_bytes") or self.value("peak_rss_bytes")

    @property
    def accuracy(self) -> Interval | None:
        """Share right with Wilson's interval, or None without answers."""
        if not self.answers:
            return None
        right = sum(correct for _, correct in self.answers.values())
        return Interval(right / len(self.answers), *accuracy_interval(right, len(self.answers)))

    def to_json(self) -> dict[str, Any]:
        """The content of ``cell.json``; a cell that never ran has no measurements."""
        head = {name: getattr(self, name) for name in _ASKED}
        if self.precision:
            head |= {name: getattr(self, name) for name in ("precision", "is_reference", "engine")}
        if self.divergence:
            head["divergence"] = {source: dict(found) for source, found in self.divergence.items()}
        for name in ("divergence_reason", "tokens_differ"):
            if told := getattr(self, name):
                head[name] = told
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
        return {"n": n, "correct": right, **figures, "errors": self.errors, "interval": ACCURACY_INTERVAL}

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
            divergence={source: _mapping(found) for source, found in _mapping(raw.get("divergence")).items()},
            divergence_reason=str(raw["divergence_reason"]) if raw.get("divergence_reason") else None,
            tokens_differ=str(raw["tokens_differ"]) if raw.get("tokens_differ") else None,
            answers=answers_of(records),
        )


_LOADED = ("architecture", "revision", "scoring_path")
_ASKED = ("row", "cell", "model", "device", "quantization", "dtype", "threads", "batch_size")


def answers_of(records: Iterable[Mapping[str, Any]]) -> dict[AnswerKey, tuple[str | None, bool]]:
    """Return the answers of a cell's records; a question that ended in an error has none."""
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
