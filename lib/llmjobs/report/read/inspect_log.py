"""Read logs of inspect_ai: ``.eval`` files, which are zip archives, and JSON.

The scorer and the reducer of epochs are those in the log's ``results.scores``, its headline first; every other scorer
becomes an additional metric. Each figure is compared with the log's own.
"""

import json
import math
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from llmjobs.errors import DataError
from llmjobs.report.read.json_files import (
    MALFORMED,
    MAX_JSON_BYTES,
    MAX_LINES_BYTES,
    each,
    listed,
    mapping,
    name_of,
    number_or_none,
    read_json,
    read_text,
)
from llmjobs.report.read.scored import check, finish, is_graded, keep, reduced
from llmjobs.report.study import Answer, Cost, ModelInfo, Question, RawEntry, RawRun
from llmjobs.terminal_text import plural

VALUES = {"c": 1.0, "i": 0.0, "p": 0.5, "n": 0.0, "true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
"""The values that inspect_ai's ``value_to_float`` gives to scores that are not numbers."""
SHOTS = re.compile(r"^(?P<name>.+?)_(?P<shots>\d+)_?shots?$")
PROVIDER = re.compile(r"^(hf|vllm|sglang|llama-cpp-python)/")
"""Prefixes that name the engine, not the model."""
MEANS = ("accuracy", "mean")
NO_ZSTD = (
    "its parts are compressed with Zstandard, which this Python cannot read: pip install backports.zstd, or write the"
    " log as JSON with 'inspect log convert --to json'"
)


def is_inspect_log(path: Path) -> bool:
    """Return whether a file is such a log: ``.eval``, or JSON that starts with ``version`` and ``eval``."""
    try:
        if not path.is_file():
            return False
        if path.suffix == ".eval":
            return True
        with path.open(encoding="utf-8") as file:
            start = file.read(4096)
        return (
            '"version"' in start
            and '"eval"' in start
            and "task" in start
            and isinstance(json.loads(read_text(path)), dict)
        )
    except (OSError, ValueError, RecursionError, DataError):
        return False


def read_inspect(path: Path) -> RawRun:
    """Read one log; samples that ended in an error are errors, not wrong answers.

    Raises:
        DataError: an ``.eval`` file that is not a complete archive, is too large, or cannot be unpacked here.

    """
    run = RawRun(path, "inspect_ai log", in_parts=True)
    log, samples = _archive(path, run) if path.suffix == ".eval" else _plain(path, run)
    spec = mapping(log.get("eval"))
    benchmark = name_of(spec.get("task") or path.stem).rsplit("/", 1)[-1]
    shots = SHOTS.match(benchmark)
    benchmark = shots["name"] if shots else benchmark
    model = PROVIDER.sub("", name_of(spec.get("model") or "unknown"))
    entry = RawEntry(ModelInfo(model, run=path.stem), path.name)
    entry.protocol[benchmark] = _protocol(spec) | ({"num_fewshot": shots["shots"]} if shots else {})
    found = _Samples()
    twice = 0
    for epoch, sample in each(samples, _epoch, run, path.name):
        twice += not found.add(epoch, sample)
    if twice:
        run.notice(
            path.name,
            f"{plural(twice, 'sample has', 'samples have')} the id and epoch of an earlier one; the first is used",
        )
    for sample in found.first.values():
        run.questions[benchmark, sample.record.subject, sample.record.doc_id] = sample.question
    _metrics(run, entry, benchmark, log, found)
    run.entries.append(entry)
    finish(run)
    if log.get("status") not in ("success", None):
        run.partial = True
        run.notice(path.name, f"the log ends with status {log.get('status')!r}; its samples are counted")
    if not found.first:
        run.notice(path.name, "no samples in the log")
    entry.cost = _cost(mapping(log.get("stats")), len(found.first))
    return run


def _plain(path: Path, run: RawRun) -> tuple[dict[str, Any], Sequence[Mapping[str, Any]]]:
    log = read_json(path, run, path.name)
    return log, [sample for sample in listed(log.get("samples")) if isinstance(sample, dict)]


def _archive(path: Path, run: RawRun) -> tuple[dict[str, Any], Iterator[Mapping[str, Any]]]:
    """Return the header of an ``.eval`` file, and an iterator over its samples."""
    module = _zip_module()
    try:
        archive = module.ZipFile(path)
        names = [info for info in archive.infolist() if info.filename.startswith("samples/")]
        if sum(info.file_size for info in archive.infolist()) > MAX_LINES_BYTES:
            raise DataError(f"{path.name}: is larger than the limit of {MAX_LINES_BYTES >> 30} GiB")
        headers = [name for name in ("header.json", "_journal/start.json") if name in archive.NameToInfo]
        if not headers:
            raise DataError(f"{path.name}: a zip archive, but not a log of inspect_ai: it has no header.json")
        log = _member(archive, headers[0], path)
        if not log:
            raise DataError(f"{path.name}: {headers[0]} in it cannot be read; was the file damaged?")
    except (zipfile.BadZipFile, module.BadZipFile) as error:
        raise DataError(
            f"{path.name}: not a complete .eval file ({error}); was it cut off when it was copied?"
        ) from error
    if headers[0] != "header.json":
        run.partial = True
        run.notice(path.name, "the log was not finished: it has no header.json, only the start of the journal")
    return log, (_member(archive, info.filename, path) for info in names)


def _zip_module() -> Any:
    if sys.version_info >= (3, 14):
        return zipfile
    with suppress(ImportError):
        return import_module("backports.zstd.zipfile")
    return zipfile


def _member(archive: Any, name: str, path: Path) -> dict[str, Any]:
    """Return an object of the archive, or an empty one if it cannot be read, which the caller counts."""
    if archive.getinfo(name).file_size > MAX_JSON_BYTES:
        raise DataError(f"{path.name}: {name} is larger than the limit of {MAX_JSON_BYTES >> 20} MiB")
    try:
        with archive.open(name) as file:
            return mapping(json.loads(file.read(MAX_JSON_BYTES + 1)))
    except NotImplementedError as error:
        raise DataError(f"{path.name}: {NO_ZSTD}") from error
    except Exception as error:  # a damaged member raises errors of zlib, zstd or zipfile, or is not JSON
        if isinstance(error, DataError | MemoryError):
            raise
        return {}


def _protocol(spec: Mapping[str, Any]) -> dict[str, str]:
    arguments = mapping(spec.get("task_args"))
    version = name_of(spec.get("task_version", ""))
    found = {"prompt": "inspect_ai", "benchmark_version": version, "output_type": "generate_until"}
    for name in ("fewshot", "num_fewshot", "cot"):
        if name in arguments:
            found["num_fewshot" if name == "fewshot" else name] = name_of(arguments[name])
    return found


@dataclass(frozen=True)
class _Sample:
    """One epoch of one question: its score by each scorer, None if it could not be scored."""

    record: Answer
    question: Question
    scores: Mapping[str, float | None]
    answers: Mapping[str, str | None]


class _Samples:
    """The samples of a log by question, with their epochs together."""

    def __init__(self) -> None:
        self.first: dict[tuple[str, str], _Sample] = {}
        self.epochs: dict[tuple[str, str], dict[str, _Sample]] = {}

    def add(self, epoch: str, sample: _Sample) -> bool:
        """Add a sample, unless its id and epoch are already there."""
        key = sample.record.subject, sample.record.doc_id
        self.first.setdefault(key, sample)
        return self.epochs.setdefault(key, {}).setdefault(epoch, sample) is sample

    @property
    def scorers(self) -> list[str]:
        return list(dict.fromkeys(name for sample in self.first.values() for name in sample.scores))

    @property
    def most_epochs(self) -> int:
        return max(map(len, self.epochs.values()), default=1)

    def records(self, scorer: str, reducer: str) -> list[Answer]:
        """Return one record per question by one scorer, with epochs reduced to one score."""
        found = []
        for key, epochs in self.epochs.items():
            scored = [(s, value) for s in epochs.values() if (value := s.scores.get(scorer)) is not None]
            record = self.first[key].record
            if not scored:
                found.append(record._replace(status="error", prediction=None, score=None))
                continue
            answers = {sample.answers.get(scorer) for sample, _ in scored}
            answer = answers.pop() if len(answers) == 1 else None
            read = answer is not None or len(scored) > 1
            score = reduced([value for _, value in scored], reducer)
            found.append(record._replace(prediction=answer, score=score, status="ok" if read else "unparsed"))
        return found


def _epoch(sample: Mapping[str, Any]) -> tuple[str, _Sample]:
    return str(sample.get("epoch", 1)), _sample(sample)


def _sample(sample: Mapping[str, Any]) -> _Sample:
    metadata = mapping(sample.get("metadata"))
    target = sample.get("target")
    scores: dict[str, float | None] = {}
    answers: dict[str, str | None] = {}
    for name, score in mapping(sample.get("scores")).items():
        value, answer = mapping(score).get("value"), mapping(score).get("answer")
        parts = {f"{name}/{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
        for key, part in parts.items():
            scores[name_of(key)] = None if sample.get("error") else _as_score(part)
            answers[name_of(key)] = None if answer in (None, "") else str(answer)
    record = Answer(
        subject=name_of(metadata.get("subject") or metadata.get("category") or "all"),
        doc_id=name_of(sample["id"]),
        gold=str(target[0] if isinstance(target, list) and target else target),
        prediction=None,
        correct=None,
        status="error",
        text=_reply(sample),
    )
    question = Question(_input(sample.get("input")), tuple(map(str, listed(sample.get("choices")))))
    return _Sample(record, question, scores, answers)


def _as_score(value: Any) -> float | None:
    """Return a score as a number, like inspect_ai; None if there is none (an unscored sample)."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        text = value.strip().lower()
        if text in VALUES:
            return VALUES[text]
        try:
            number = float(text)
        except ValueError:
            return None
        return number if math.isfinite(number) else None
    return number_or_none(value)


def _metrics(run: RawRun, entry: RawEntry, benchmark: str, log: Mapping[str, Any], found: _Samples) -> None:
    """Keep the scorers' records: first those that the log names, in its order, then the others."""
    reported = _reported(log)
    names = [scorer for scorer, _, _ in reported]
    if not reported and len(found.scorers) > 1:
        planned = [name_of(mapping(s).get("name")) for s in listed(mapping(log.get("eval")).get("scorers"))]
        names = [name for name in planned if name in found.scorers]
        shown = ", ".join(found.scorers)
        run.notice(entry.source, f"the log names no results; of its scorers {shown} the first is used")
    left: list[str] = []
    done: set[tuple[str, str]] = set()
    for scorer, reducer, figures in [*reported, *((name, "mean", {}) for name in [*names, *found.scorers])]:
        if scorer not in found.scorers or (scorer, reducer) in done:
            continue
        done.add((scorer, reducer))
        try:
            records = found.records(scorer, reducer)
        except KeyError:
            run.notice(entry.source, f"scorer {scorer}: the reducer {reducer!r} is not known; the mean is used")
            records = found.records(scorer, "mean")
        if any(r.score is not None and not 0 <= r.score <= 1 for r in records):
            left.append(scorer)
            continue
        metric = _metric_name(scorer, reducer, found, records)
        if metric in entry.by_metric.get(benchmark, {}):
            continue
        for name, value, asked in figures:
            check(run, entry.source, f"{name} of {scorer}", value, records, asked)
        keep(entry, benchmark, metric, records)
    if left:
        run.notice(
            entry.source,
            f"scores of {', '.join(dict.fromkeys(left))} are not between 0 and 1; not in this report",
        )
    if found.most_epochs > 1 and benchmark in entry.by_metric:
        reducer = reported[0][1] if reported else "mean"
        run.notice(
            entry.source, f"{found.most_epochs} epochs of each question, reduced to one score by the log's {reducer}"
        )


def _metric_name(scorer: str, reducer: str, found: _Samples, records: Sequence[Answer]) -> str:
    name = "acc" if scorer == "choice" and not is_graded(records) else scorer
    return name if found.most_epochs == 1 or reducer == "mean" else f"{name} ({reducer})"


def _reported(log: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[str, Any, Any]]]]:
    """Return scorer, reducer and (metric, value, samples) of each of the log's results, the headline first."""
    results = mapping(log.get("results"))
    headline = mapping(results.get("headline")).get("score")
    found = []
    for item in map(mapping, listed(results.get("scores"))):
        name, scorer = name_of(item.get("name")), name_of(item.get("scorer") or item.get("name"))
        metrics = mapping(item.get("metrics"))
        asked = item.get("scored_samples", results.get("completed_samples"))
        figures = [(m, mapping(metrics[m]).get("value"), asked) for m in MEANS if m in metrics]
        key = name if name == scorer else f"{scorer}/{name}"
        found.append((key, name_of(item.get("reducer") or "mean"), figures))
    return sorted(found, key=lambda item: item[0].rpartition("/")[2] != headline)


def _input(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(str(message.get("content", "")) for message in value if isinstance(message, dict))
    return str(value)


def _reply(sample: Mapping[str, Any]) -> str | None:
    choices = listed(mapping(sample.get("output")).get("choices"))
    content = mapping(mapping(choices[0]).get("message")).get("content") if choices else None
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return None if content is None else str(content)


def _cost(stats: Mapping[str, Any], questions: int) -> Cost | None:
    try:
        begin, end = (datetime.fromisoformat(str(stats[key])) for key in ("started_at", "completed_at"))
        return Cost(real_s=(end - begin).total_seconds(), questions=questions)
    except MALFORMED:
        return None
