"""Matches what the readers found: per benchmark, one table with a row per model and a column per question."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from llmjobs.errors import DataError
from llmjobs.report.benchmark_table import (
    Candidate,
    Key,
    build_benchmark,
    differing_gold,
    differing_protocol,
    differing_questions,
    few,
    refuse,
)
from llmjobs.report.labels import label_entries
from llmjobs.report.match import Moved, match
from llmjobs.report.questions import attach_questions, fill_gold, read_label_notes
from llmjobs.report.read.scored import is_graded, mean_of, value_of
from llmjobs.report.study import (
    Answer,
    Benchmark,
    Entry,
    MetricTable,
    Notice,
    Question,
    RawEntry,
    RawRun,
    Repeat,
    Study,
)
from llmjobs.terminal_text import agree, plural

MAX_DIGITS = 19
"""Largest question id that counts as a number; a longer one counts as a name."""
Named = Sequence[tuple[str, RawRun, RawEntry]]
WHERE = ("study", "run", "model", "engine", "device", "quantization", "dtype", "benchmark", "subject", "metric")


def assemble(
    runs: Sequence[RawRun],
    *,
    common: bool = False,
    where: Mapping[str, str] | None = None,
    budget: Mapping[str, float] | None = None,
    questions: Path | None = None,
    label_notes: Path | None = None,
    any_prompt: bool = False,
) -> Study:
    """Return the study.

    Raises:
        DataError: the entries are not comparable, or nothing is left to report.

    """
    where = where or {}
    pairs = select(runs, where)
    taken = tuple(_taken(run, pairs) for run in runs)
    if questions:
        attach_questions(pairs, questions)
    fill_gold(pairs)
    pairs, repeats = split_repeats(join_parts(pairs))
    pairs.sort(key=lambda pair: (-_accuracy(pair[1]), pair[1].info.id, pair[1].source))
    labels = label_entries([entry for _, entry in pairs])
    named = [(label, run, entry) for label, (run, entry) in zip(labels, pairs, strict=True)]
    notices = [*_selection(runs, where, taken), *(notice for run in runs for notice in run.notices)]
    notices += [*_one_model_by_two_names(named), *_different_repeats(repeats)]
    benchmarks, metrics = _benchmarks(named, common, any_prompt, notices)
    if pairs and not benchmarks and not metrics:
        reasons = "; ".join(map(str, notices[:3])) + ("; …" if len(notices) > 3 else "")
        several = len(pairs) > 1 and any(entry.records for _, _, entry in named)
        what = "was answered by all of these models" if several else "has an answer in this input"
        raise DataError(f"no question {what}: nothing to report" + (f" ({reasons})" if reasons else ""))
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
        metrics=tuple(metrics),
        where=dict(where),
        taken=taken,
    )
    return _with_label_notes(study, label_notes) if label_notes else study


def _with_label_notes(study: Study, folder: Path) -> Study:
    """Add the label notes; say so if they are about none of the questions."""
    notes = read_label_notes(folder, study)
    if notes:
        return replace(study, label_notes=notes)
    has_texts = any(question for benchmark in study.benchmarks for question in benchmark.questions)
    why = (
        "they are about other questions or subjects"
        if has_texts
        else "questions are found by their text, which these results do not contain; add it with --questions FOLDER"
    )
    return replace(study, notices=(*study.notices, Notice(f"--label-notes {folder}", f"cover no question: {why}")))


def _taken(run: RawRun, pairs: Sequence[tuple[RawRun, RawEntry]]) -> tuple[int, int]:
    """Return how many models and records of a run were selected."""
    entries = [entry for other, entry in pairs if other is run]
    return len(entries), sum(map(_size, entries))


def _selection(runs: Sequence[RawRun], where: Mapping[str, str], taken: Sequence[tuple[int, int]]) -> list[Notice]:
    """Return a notice with the numbers of models and records that ``where`` selected."""
    if not where:
        return []
    models, records = (sum(counts) for counts in zip(*taken, strict=True))
    all_models = sum(len(run.entries) for run in runs)
    all_records = sum(_size(entry) for run in runs for entry in run.entries)
    asked = ", ".join(f"{name}={value}" for name, value in where.items())
    return [
        Notice(
            f"--where {asked}",
            f"selects {models:,} of {plural(all_models, 'model')} and {records:,} of"
            f" {plural(all_records, 'record')}; this report covers only these",
        )
    ]


def select(runs: Sequence[RawRun], where: Mapping[str, str]) -> list[tuple[RawRun, RawEntry]]:
    """Return the entries that match every ``where``, reduced to the selected benchmark and subject."""
    unknown = sorted(set(where) - set(WHERE))
    if unknown:
        raise DataError(f"--where: '{unknown[0]}' is not one of {', '.join(WHERE)}")
    kept = []
    for run in runs:
        for entry in run.entries:
            if not _matches(entry, where):
                continue
            if (part := _part(entry, where)).records or not where:
                kept.append((run, part))
    if where and not kept:
        asked = ", ".join(f"{name}={value}" for name, value in where.items())
        raise DataError(f"--where {asked}: matches nothing in the input")
    return kept


def _part(entry: RawEntry, where: Mapping[str, str]) -> RawEntry:
    """Return an entry reduced to the selected benchmark, subject and metric."""

    def cut(records: Sequence[Answer]) -> list[Answer]:
        return [record for record in records if where.get("subject", record.subject) == record.subject]

    names = [name for name in entry.records if where.get("benchmark", name) == name]
    tables = {name: {m: cut(part) for m, part in entry.by_metric.get(name, {}).items()} for name in names}
    metric = {name: entry.metric.get(name, "") for name in names}
    records = {name: tables[name].get(metric[name]) or cut(entry.records[name]) for name in names}
    if (asked := where.get("metric")) is not None:
        records = {name: found for name in names if (found := tables[name].get(asked))}
        metric = dict.fromkeys(records, asked)
        tables = {name: {asked: records[name]} for name in records}
    kept = {name: part for name, part in records.items() if part}
    return replace(entry, records=kept, metric=metric, by_metric={name: tables[name] for name in kept if tables[name]})


def join_parts(pairs: Sequence[tuple[RawRun, RawEntry]]) -> list[tuple[RawRun, RawEntry]]:
    """Combine the logs of one model that another tool wrote separately, unless a subject is in two of them.

    Parts of one benchmark must have the same protocol.
    """
    kept: list[tuple[RawRun, RawEntry]] = []
    for run, entry in pairs:
        at = next((n for n, (other, first) in enumerate(kept) if _is_part(run, entry, other, first)), None)
        if at is None or not run.in_parts:
            kept.append((run, entry))
        else:
            kept[at] = _joined(kept[at], (run, entry))
    return kept


def _subjects(entry: RawEntry) -> set[Key]:
    return {(name, record.subject) for name, part in entry.records.items() for record in part}


def _is_part(run: RawRun, entry: RawEntry, other: RawRun, first: RawEntry) -> bool:
    same = (
        run.kind == other.kind
        and entry.info.id == first.info.id
        and entry.info.settings == first.info.settings
        and entry.info.study == first.info.study
    )
    alike = all(
        first.protocol.get(name) == protocol and first.metric.get(name) == entry.metric.get(name)
        for name, protocol in entry.protocol.items()
        if name in first.records
    )
    return same and alike and not _subjects(entry) & _subjects(first)


def _joined(first: tuple[RawRun, RawEntry], second: tuple[RawRun, RawEntry]) -> tuple[RawRun, RawEntry]:
    (run, a), (other, b) = first, second
    if other is not run:
        run.questions.update({key: q for key, q in other.questions.items() if key not in run.questions})
    tables = {name: dict(found) for name, found in a.by_metric.items()}
    for name, found in b.by_metric.items():
        for key, part in found.items():
            tables.setdefault(name, {})[key] = [*tables.get(name, {}).get(key, ()), *part]
    metric = {**b.metric, **a.metric}
    records = {name: tables[name][metric[name]] for name in tables}
    cost = None
    if a.cost and b.cost and a.cost.real_s is not None and b.cost.real_s is not None:
        cost = replace(a.cost, real_s=a.cost.real_s + b.cost.real_s, questions=a.cost.questions + b.cost.questions)
    names = list(dict.fromkeys([*a.info.run.split(" + "), b.info.run]))
    info = replace(a.info, run=" + ".join(names))
    joined = replace(
        a,
        info=info,
        source=" + ".join(dict.fromkeys([*a.source.split(" + "), b.source])),
        records=records,
        metric=metric,
        by_metric=tables,
        protocol={**b.protocol, **a.protocol},
        cost=cost,
    )
    return run, joined


def _matches(entry: RawEntry, where: Mapping[str, str]) -> bool:
    info = entry.info
    have = {
        "study": (info.study,),
        "run": (info.run,),
        "model": (info.id, info.id.rsplit("/", 1)[-1], str(info.details.get("name", ""))),
        "engine": (info.engine,),
        "device": (info.device,),
        "quantization": (info.quantization or "none",),
        "dtype": (info.dtype,),
    }
    return all(where[name] in values for name, values in have.items() if name in where)


def split_repeats(
    pairs: Sequence[tuple[RawRun, RawEntry]],
) -> tuple[list[tuple[RawRun, RawEntry]], list[Repeat]]:
    """Keep the most complete run of each model with its settings and machine; the others count as repeats.

    Where no prompt is recorded, other answers may have another prompt, so only a run with the same answers is a repeat.
    """
    order = sorted(pairs, key=lambda pair: (-_size(pair[1]), pair[1].source))
    kept: list[tuple[RawRun, RawEntry]] = []
    repeats: list[Repeat] = []
    for run, entry in order:
        compared = (_repeats(entry, other) for _, other in kept)
        found = next((one for one in compared if one is not None), None)
        if found is None:
            kept.append((run, entry))
        else:
            repeats += found
    return kept, repeats


def _size(entry: RawEntry) -> int:
    return sum(map(len, entry.records.values()))


def _repeats(entry: RawEntry, other: RawEntry) -> list[Repeat] | None:
    """The comparison of both by benchmark if ``entry`` repeats ``other``; otherwise None."""
    same = (
        entry.info.id == other.info.id
        and entry.info.details.get("name") == other.info.details.get("name")
        and entry.info.settings == other.info.settings
        and entry.info.study == other.info.study
        and dict(entry.machine) == dict(other.machine)
        and entry.protocol == other.protocol
    )
    scored_alike = all(
        entry.metric.get(name, "") in {other.metric.get(name, ""), *other.by_metric.get(name, {})}
        for name in entry.records
    )
    contained = all(_keys(part) <= _keys(other.records.get(benchmark, ())) for benchmark, part in entry.records.items())
    if not (same and scored_alike and contained):
        return None
    found = _compare(entry, other)
    known = any(entry.protocol.values()) or bool(entry.fingerprints)
    return found if known or all(repeat.same == repeat.questions for repeat in found) else None


def _different_repeats(repeats: Sequence[Repeat]) -> list[Notice]:
    """Say which repeats do not give the answers of the run that is reported."""
    found = []
    for repeat in repeats:
        unlike = repeat.questions - repeat.same
        if unlike:
            found.append(
                Notice(
                    repeat.source,
                    f"{repeat.label}: a repeat with the same settings, which is not counted; {unlike:,} of"
                    f" {plural(repeat.questions, 'answer')} on {repeat.benchmark} {agree(unlike, 'differs', 'differ')}"
                    " from those of the run in this report",
                )
            )
    return found


WEIGHTS = re.compile(r"[0-9a-f]{40}|sha256:[0-9a-f]{64}")
"""Revisions that stand for the bytes of the weights: a commit, or a digest of the files."""


def _one_model_by_two_names(named: Named) -> list[Notice]:
    """Say where two entries hold the same weights with the same settings: such a pair compares a model with itself."""
    found: list[Notice] = []
    seen: dict[object, tuple[str, RawEntry]] = {}
    for label, _, entry in named:
        info = entry.info
        if not WEIGHTS.fullmatch(info.revision):
            continue
        protocol = repr(sorted((name, sorted(fields.items())) for name, fields in entry.protocol.items()))
        key = (info.settings, info.detail("threads"), info.study, repr(sorted(entry.machine.items())), protocol)
        first, other = seen.setdefault(key, (label, entry))
        name, own_name = (str(one.info.details.get("name") or one.info.id) for one in (other, entry))
        if other is entry or name == own_name:
            continue
        same, asked = _agreement(entry, other)
        found.append(
            Notice(
                f"{first} and {label}",
                f"two names for one model: the same weights ({info.revision[:19]}) and settings. They gave the same"
                f" answer to {same:,} of {asked:,} questions",
            )
        )
    return found


def _agreement(entry: RawEntry, other: RawEntry) -> tuple[int, int]:
    """Equal answers, and questions that both were asked."""
    same = asked = 0
    for benchmark, part in entry.records.items():
        known = {(r.subject, r.doc_id): r for r in other.records.get(benchmark, ())}
        pairs = [(known[r.subject, r.doc_id], r) for r in part if (r.subject, r.doc_id) in known]
        same += sum(_same_answer(one, two) for one, two in pairs)
        asked += len(pairs)
    return same, asked


def _keys(records: Sequence[object]) -> set[Key]:
    return {(record.subject, record.doc_id) for record in records}  # type: ignore[attr-defined]


def _compare(entry: RawEntry, first: RawEntry) -> list[Repeat]:
    found = []
    for benchmark, part in entry.records.items():
        known = {(r.subject, r.doc_id): r for r in first.records[benchmark]}
        same = sum(_same_answer(known[record.subject, record.doc_id], record) for record in part)
        found.append(Repeat(entry.info.id, benchmark, entry.source, len(part), same))
    return found


def _same_answer(one: Answer, other: Answer) -> bool:
    """Compare two answers to one question; if a log only has right or wrong, compare those."""
    if one.gold and other.gold:
        return one.prediction == other.prediction
    return (one.correct, one.score) == (other.correct, other.score)


def _accuracy(entry: RawEntry) -> float:
    mean, _ = mean_of([record for part in entry.records.values() for record in part])
    return -1.0 if mean is None else mean


def _entry(label: str, entry: RawEntry) -> Entry:
    return Entry(label, entry.info, entry.source, entry.cost, entry.machine, entry.fingerprints, entry.changed)


def _benchmarks(
    named: Named, common: bool, any_prompt: bool, notices: list[Notice]
) -> tuple[list[Benchmark], list[MetricTable]]:
    """Match every benchmark; one with partial credit gets mean scores instead of right and wrong."""
    names = sorted({name for _, _, entry in named for name, part in entry.records.items() if part})
    problems: dict[str, list[str]] = {}
    only_questions = True
    chosen: dict[str, tuple[str, list[Candidate], list[Moved], set[Key]]] = {}
    for name in names:
        members = [(label, run, entry) for label, run, entry in named if entry.records.get(name)]
        metric, records, remarks, differs = _one_metric(name, members)
        texts = {id(run): _texts(run, name) for _, run, _ in members}
        candidates = [
            _candidate(label, run, entry, name, part, texts[id(run)])
            for (label, run, entry), part in zip(members, records, strict=True)
        ]
        candidates, moves, found = match(candidates)
        notices += [Notice(name, what) for what in [*remarks, *found]]
        protocol = differing_protocol(candidates, name)
        if any_prompt and protocol:
            notices.append(Notice(name, f"compared despite differences (--any-prompt): {'; '.join(protocol)}"))
            protocol = []
        gold = differing_gold(candidates)
        questions = None if _stopped(name, candidates, notices) else differing_questions(candidates)
        lines = [*differs, *protocol]
        only_questions = only_questions and not lines
        if questions and not common:
            lines.append(questions)
        if gold and not common:
            lines.append(
                f"{plural(len(gold), 'question has', 'questions have')} the same id, but a different gold"
                " answer or text"
            )
        if lines:
            problems[name] = lines
        if common and (questions or gold):
            dropped = f", {len(gold)} with different gold answers left out" if gold else ""
            notices.append(Notice(name, f"compared on the common questions: {questions or 'same ids'}{dropped}"))
        chosen[name] = (metric, candidates, moves, gold)
    refuse(problems, only_questions, notices if only_questions else ())
    benchmarks: list[Benchmark] = []
    metrics: list[MetricTable] = []
    places = {id(entry): place for place, (_, _, entry) in enumerate(named)}
    for name, (metric, candidates, moves, unlike) in chosen.items():
        keys = _shared(name, candidates, unlike, notices)
        if not keys:
            continue
        rows = [places[id(candidate.entry)] for candidate in candidates]
        metrics += _metric_tables(name, metric, rows, candidates, moves, keys)
        if not any(is_graded([*candidate.records.values()]) for candidate in candidates):
            benchmarks.append(build_benchmark(name, rows, candidates, keys, metric))
    return benchmarks, metrics


def _stopped(name: str, candidates: Sequence[Candidate], notices: list[Notice]) -> bool:
    """Whether a rule ended the questions of a candidate, so that not all were asked the same ones."""
    stopped = any(candidate.run.races for candidate in candidates)
    if stopped and differing_questions(candidates):
        notices.append(
            Notice(
                name,
                "a rule ended the questions: compared on those that every model answered, as if their number had been"
                " fixed beforehand",
            )
        )
    return stopped


def _one_metric(name: str, members: Named) -> tuple[str, list[list[Answer]], list[str], list[str]]:
    """Return a benchmark's metric, each member's records, notices, and differences.

    A table of answers names no metric and fits any. If logs name different metrics, one that all of them have is used.
    """
    own = [entry.metric.get(name, "") for _, _, entry in members]
    plain = [entry.records[name] for _, _, entry in members]
    known = list(dict.fromkeys(metric for metric in own if metric))
    remarks = []
    unnamed = [label for (label, _, _), metric in zip(members, own, strict=True) if not metric]
    if len(known) <= 1:
        metric = known[0] if known else ""
        others = {m for _, _, e in members for m in e.by_metric.get(name, {})} - {metric}
        if metric and unnamed and others:
            remarks.append(f"{few(unnamed)}: the log does not name its metric; compared by {metric}")
        return metric, plain, remarks, []
    tables = [entry.by_metric.get(name, {}) for _, _, entry in members]
    everywhere = set.intersection(*(set(table) for table, metric in zip(tables, own, strict=True) if metric))
    ours = [metric for (_, run, _), metric in zip(members, own, strict=True) if run.kind == "llmjobs run"]
    usual = sorted(everywhere - {""}, key=lambda metric: (-ours.count(metric), -own.count(metric), metric))
    if not usual:
        by_metric: dict[str, list[str]] = {}
        for (label, _, _), metric in zip(members, own, strict=True):
            by_metric.setdefault(metric, []).append(label)
        shown = "; ".join(f"{m or 'not named'}: {few(who)}" for m, who in sorted(by_metric.items()))
        return known[0], plain, remarks, [f"metric differs ({shown})"]
    metric = usual[0]
    changed = [label for (label, _, _), theirs in zip(members, own, strict=True) if theirs not in ("", metric)]
    remarks.append(
        f"compared by {metric}, which all of these logs have; the default of {few(changed)} is a different one"
    )
    return metric, [table.get(metric, part) for table, part in zip(tables, plain, strict=True)], remarks, []


def _texts(run: RawRun, benchmark: str) -> dict[Key, Question]:
    return {(subject, doc_id): q for (name, subject, doc_id), q in run.questions.items() if name == benchmark}


def _candidate(
    label: str,
    run: RawRun,
    entry: RawEntry,
    benchmark: str,
    records: Sequence[Answer],
    texts: Mapping[Key, Question],
) -> Candidate:
    found = {(record.subject, record.doc_id): record for record in records}
    asked = run.asked.get(benchmark)
    declared = frozenset(key for key in asked if key in found) if asked else frozenset(found)
    whole = frozenset(asked) if asked and run.partial else declared
    questions = {key: texts[key] for key in {**found, **dict.fromkeys(whole)} if key in texts}
    return Candidate(label, entry, run, whole, found, questions)


def _shared(name: str, candidates: Sequence[Candidate], unlike: set[Key], notices: list[Notice]) -> list[Key]:
    """Return the questions that every candidate answered, in order."""
    shared = set.intersection(*(set(candidate.records) for candidate in candidates)) - unlike
    everything = set().union(*(candidate.records for candidate in candidates))
    if not shared:
        notices.append(Notice(name, "no question has an answer from every model: left out of this report"))
    elif len(shared) < len(everything):
        counted = (
            f"every model answered {len(shared):,} of {plural(len(everything), 'question')}; only"
            f" {agree(len(shared), 'this one is', 'these are')} counted"
        )
        notices.append(Notice(name, counted))
    return sorted(shared, key=_order)


def _order(key: Key) -> tuple[str, int, str]:
    subject, doc_id = key
    return (subject, int(doc_id) if doc_id.isdecimal() and len(doc_id) < MAX_DIGITS else -1, doc_id)


def _metric_tables(
    benchmark: str,
    metric: str,
    rows: Sequence[int],
    candidates: Sequence[Candidate],
    moves: Sequence[Moved],
    keys: Sequence[Key],
) -> list[MetricTable]:
    """Return a table for each metric on ``keys``, the main one first; none if it would add nothing.

    For a benchmark of right and wrong with a single metric, accuracy says the same.
    """
    records: dict[str, list[dict[Key, Answer]]] = {metric: [dict(candidate.records) for candidate in candidates]}
    for number, (candidate, moved) in enumerate(zip(candidates, moves, strict=True)):
        for name, part in candidate.entry.by_metric.get(benchmark, {}).items():
            if name and name != metric:
                found = records.setdefault(name, [{} for _ in candidates])
                found[number] = {(r.subject, r.doc_id): r for r in map(moved.record, part)}
    graded = {name: any(is_graded([*part.values()]) for part in parts) for name, parts in records.items()}
    if len(records) == 1 and not graded[metric]:
        return []
    subject = np.array([subject for subject, _ in keys], dtype=np.str_)
    tables = []
    for name, parts in records.items():
        held = [number for number, part in enumerate(parts) if part]
        values = np.full((len(held), len(keys)), np.nan)
        for row, number in enumerate(held):
            for column, key in enumerate(keys):
                record = parts[number].get(key)
                value = value_of(record) if record is not None and record.status != "error" else None
                values[row, column] = np.nan if value is None else value
        tables.append(
            MetricTable(
                benchmark, name, tuple(rows[n] for n in held), values, subject, graded[name], counts=name == metric
            )
        )
    return tables
