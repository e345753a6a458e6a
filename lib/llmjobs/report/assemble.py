"""Lines up what the readers found: one table of questions a benchmark, one row a model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmjobs.errors import DataError
from llmjobs.report.columns import build_benchmark
from llmjobs.report.comparable import (
    Candidate,
    Key,
    differing_gold,
    differing_protocol,
    differing_questions,
    refuse,
)
from llmjobs.report.label_notes import read_label_notes
from llmjobs.report.labels import label_entries
from llmjobs.report.questions import attach_questions
from llmjobs.report.study import Benchmark, Entry, Notice, RawEntry, RawRun, Repeat, Study

MAX_DIGITS = 19
"""A longer question id is a name and no number."""
WHERE = ("study", "run", "model", "device", "quantization", "dtype", "benchmark", "subject")


def assemble(
    runs: Sequence[RawRun],
    *,
    common: bool = False,
    where: Mapping[str, str] | None = None,
    budget: Mapping[str, float] | None = None,
    questions: Path | None = None,
    label_notes: Path | None = None,
) -> Study:
    """Return the study; a DataError when the entries are not comparable or nothing is left to report."""
    pairs = select(runs, where or {})
    if questions:
        attach_questions(runs, questions)
    pairs, repeats = split_repeats(pairs)
    pairs.sort(key=lambda pair: (-_accuracy(pair[1]), pair[1].info.id, pair[1].source))
    labels = label_entries([entry for _, entry in pairs])
    named = [(label, run, entry) for label, (run, entry) in zip(labels, pairs, strict=True)]
    notices = [notice for run in runs for notice in run.notices]
    benchmarks = _benchmarks(named, common, notices)
    if pairs and not benchmarks:
        raise DataError("no question has an answer yet in what was given: nothing to report")
    entries = tuple(_entry(label, entry) for label, _, entry in named)
    title = ", ".join(dict.fromkeys(run.path.resolve().name for run in runs))
    study = Study(
        title=title,
        entries=entries,
        benchmarks=tuple(benchmarks),
        runs=tuple(runs),
        notices=tuple(dict.fromkeys(notices)),
        partial=any(run.partial for run in runs),
        repeats=tuple(repeats),
        budget=dict(budget or {}),
    )
    return replace(study, label_notes=read_label_notes(label_notes, study)) if label_notes else study


def select(runs: Sequence[RawRun], where: Mapping[str, str]) -> list[tuple[RawRun, RawEntry]]:
    """Return the entries that match every ``where``, cut to the benchmark and subject asked for."""
    unknown = sorted(set(where) - set(WHERE))
    if unknown:
        raise DataError(f"--where: '{unknown[0]}' is not one of {', '.join(WHERE)}")
    kept = []
    for run in runs:
        for entry in run.entries:
            if not _matches(entry, where):
                continue
            records = {
                benchmark: [r for r in part if where.get("subject", r.subject) == r.subject]
                for benchmark, part in entry.records.items()
                if where.get("benchmark", benchmark) == benchmark
            }
            kept.append((run, replace(entry, records={name: part for name, part in records.items() if part})))
    if where and not kept:
        asked = ", ".join(f"{name}={value}" for name, value in where.items())
        raise DataError(f"--where {asked}: matches nothing in what was given")
    return kept


def _matches(entry: RawEntry, where: Mapping[str, str]) -> bool:
    info = entry.info
    have = {
        "study": (info.study,),
        "run": (info.run,),
        "model": (info.id, info.id.rsplit("/", 1)[-1], str(info.details.get("name", ""))),
        "device": (info.device,),
        "quantization": (info.quantization or "none",),
        "dtype": (info.dtype,),
    }
    return all(where[name] in values for name, values in have.items() if name in where)


def split_repeats(
    pairs: Sequence[tuple[RawRun, RawEntry]],
) -> tuple[list[tuple[RawRun, RawEntry]], list[Repeat]]:
    """Keep the fullest run of each model with its settings and machine; the others are repeats of it."""
    order = sorted(pairs, key=lambda pair: (-_size(pair[1]), pair[1].source))
    kept: list[tuple[RawRun, RawEntry]] = []
    repeats: list[Repeat] = []
    for run, entry in order:
        first = next((other for _, other in kept if _repeats(entry, other)), None)
        if first is None:
            kept.append((run, entry))
        else:
            repeats += _compare(entry, first)
    return kept, repeats


def _size(entry: RawEntry) -> int:
    return sum(map(len, entry.records.values()))


def _repeats(entry: RawEntry, other: RawEntry) -> bool:
    same = (
        entry.info.id == other.info.id
        and entry.info.details.get("name") == other.info.details.get("name")
        and entry.info.settings == other.info.settings
        and entry.info.study == other.info.study
        and dict(entry.machine) == dict(other.machine)
        and entry.protocol == other.protocol
    )
    return same and all(
        _keys(part) <= _keys(other.records.get(benchmark, ())) for benchmark, part in entry.records.items()
    )


def _keys(records: Sequence[object]) -> set[Key]:
    return {(record.subject, record.doc_id) for record in records}  # type: ignore[attr-defined]


def _compare(entry: RawEntry, first: RawEntry) -> list[Repeat]:
    found = []
    for benchmark, part in entry.records.items():
        known = {(r.subject, r.doc_id): r.prediction for r in first.records[benchmark]}
        same = sum(known[record.subject, record.doc_id] == record.prediction for record in part)
        found.append(Repeat(entry.info.id, benchmark, entry.source, len(part), same))
    return found


def _accuracy(entry: RawEntry) -> float:
    scored = [record.correct for part in entry.records.values() for record in part if record.correct is not None]
    return sum(scored) / len(scored) if scored else -1.0


def _entry(label: str, entry: RawEntry) -> Entry:
    return Entry(label, entry.info, entry.source, entry.cost, entry.machine, entry.fingerprints)


def _benchmarks(named: Sequence[tuple[str, RawRun, RawEntry]], common: bool, notices: list[Notice]) -> list[Benchmark]:
    names = sorted({name for _, _, entry in named for name, part in entry.records.items() if part})
    problems: dict[str, list[str]] = {}
    only_questions = True
    chosen: dict[str, tuple[list[Candidate], set[Key]]] = {}
    for name in names:
        candidates = [_candidate(label, run, entry, name) for label, run, entry in named if entry.records.get(name)]
        protocol = differing_protocol(candidates, name)
        gold = differing_gold(candidates)
        questions = differing_questions(candidates)
        lines = list(protocol)
        only_questions = only_questions and not protocol
        if questions and not common:
            lines.append(questions)
        if gold and not common:
            lines.append(f"{len(gold)} questions with the same id have another gold answer or text")
        if lines:
            problems[name] = lines
        if common and (questions or gold):
            dropped = f", {len(gold)} with unlike gold answers left out" if gold else ""
            notices.append(Notice(name, f"compared on the common questions: {questions or 'same ids'}{dropped}"))
        chosen[name] = (candidates, gold)
    refuse(problems, only_questions)
    return [b for name, (found, gold) in chosen.items() if (b := _build(name, found, gold, named, notices))]


def _candidate(label: str, run: RawRun, entry: RawEntry, benchmark: str) -> Candidate:
    gold = {
        (record.subject, record.doc_id): (record.gold + _digest(run, benchmark, record.subject, record.doc_id))
        for record in entry.records[benchmark]
    }
    asked = run.asked.get(benchmark)
    subjects = {record.subject for record in entry.records[benchmark]}
    declared = frozenset(key for key in asked if key in gold or not subjects) if asked else frozenset(gold)
    whole = frozenset(asked) if asked and run.partial else declared
    return Candidate(label, entry, run, whole, gold)


def _digest(run: RawRun, benchmark: str, subject: str, doc_id: str) -> str:
    question = run.questions.get((benchmark, subject, doc_id))
    return f" {question.hash}" if question and run.kind == "llmjobs run" else ""


def _build(
    name: str,
    candidates: Sequence[Candidate],
    unlike: set[Key],
    named: Sequence[tuple[str, RawRun, RawEntry]],
    notices: list[Notice],
) -> Benchmark | None:
    shared = set.intersection(*(set(candidate.gold) for candidate in candidates)) - unlike
    everything = set().union(*(candidate.gold for candidate in candidates))
    if not shared:
        notices.append(Notice(name, "no question has an answer from every model: left out of this report"))
        return None
    if len(shared) < len(everything):
        counted = f"{len(shared):,} of {len(everything):,} questions are answered by every model and counted"
        notices.append(Notice(name, counted))
    places = {id(entry): place for place, (_, _, entry) in enumerate(named)}
    rows = [places[id(candidate.entry)] for candidate in candidates]
    return build_benchmark(name, rows, candidates, sorted(shared, key=_order))


def _order(key: Key) -> tuple[str, int, str]:
    subject, doc_id = key
    return (subject, int(doc_id) if doc_id.isdecimal() and len(doc_id) < MAX_DIGITS else -1, doc_id)
