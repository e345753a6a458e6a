"""What every reader does with scores: one record per question, each metric separately, checked against the tool.

A reader produces each metric's records with ``score`` set. :func:`keep` decides whether the metric is right or wrong or
a mean score, :func:`one_each` handles repeated ids, and :func:`check` compares the mean with the tool's own figure.
"""

from collections.abc import Callable, Mapping, Sequence
from math import comb
from statistics import fmean, median, mode

from llmjobs.report.read.json_files import number_or_none
from llmjobs.report.study import Answer, RawEntry, RawRun
from llmjobs.terminal_text import agree, plural

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
TOLERANCE = 1e-4
"""Two figures that differ by at most this count as equal, because figures are rounded."""


def value_of(record: Answer) -> float | None:
    """Return a record's value in a mean: its score, or 1 for right and 0 for wrong."""
    return record.score if record.score is not None else None if record.correct is None else float(record.correct)


def mean_of(records: Sequence[Answer]) -> tuple[float | None, int]:
    """Return the mean over the scored records, and their number."""
    values = [value for record in records if (value := value_of(record)) is not None]
    return (fmean(values) if values else None), len(values)


def is_graded(records: Sequence[Answer]) -> bool:
    """Return whether partial credit occurs."""
    return any(record.score is not None and record.score not in (0.0, 1.0) for record in records)


def settled(records: Sequence[Answer]) -> list[Answer]:
    """Return the records with right and wrong in place of scores that are all 0 or 1."""
    if is_graded(records):
        return [record._replace(correct=None) for record in records]
    return [r if r.score is None else r._replace(correct=r.score == 1.0, score=None) for r in records]


def outside(records: Sequence[Answer]) -> bool:
    """Return whether some scores are not between 0 and 1."""
    return any(record.score is not None and not 0 <= record.score <= 1 for record in records)


def keep(entry: RawEntry, benchmark: str, metric: str, records: Sequence[Answer]) -> None:
    """Add records of one metric to an entry; the first metric of a benchmark is the main one."""
    entry.metric.setdefault(benchmark, metric)
    entry.by_metric.setdefault(benchmark, {}).setdefault(metric, []).extend(records)


def split_metrics(entry: RawEntry, benchmark: str, choices: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """Give every metric in a benchmark's records separate records.

    If a metric equals ``correct`` in every record, ``correct`` was computed from it. ``choices`` are the options of a
    question, if they are known.
    """
    records = entry.records.get(benchmark, [])
    scored = [record for record in records if record.status != "error"]
    names = [name for name in dict.fromkeys(name for r in scored for name in r.metrics or ()) if name]
    names = [n for n in names if all(r.metrics and 0 <= r.metrics.get(n, -1) <= 1 for r in scored)]
    same = [n for n in names if all(r.correct is not None and float(r.correct) == (r.metrics or {})[n] for r in scored)]
    main = next((name for name in ("acc_norm", *same) if name in same), "")
    entry.metric[benchmark] = main
    tables = entry.by_metric.setdefault(benchmark, {})
    tables[main] = records
    for name in names:
        if name != main:
            tables[name] = settled([_scored_by(r, name, choices.get((r.subject, r.doc_id), ())) for r in records])


def _scored_by(record: Answer, metric: str, choices: Sequence[str]) -> Answer:
    if record.status == "error" or not record.metrics:
        return record
    status = "ok" if record.loglikelihoods else record.status
    plain = record._replace(correct=None, prediction=None, status=status)
    return choose(plain, metric, record.metrics[metric], choices)


def choose(record: Answer, metric: str, value: float, choices: Sequence[str]) -> Answer:
    """Score a record by a metric, and add the option that the metric chooses.

    ``acc`` takes the largest log-likelihood, ``acc_norm`` the largest one per character. If that contradicts the score,
    or for other metrics, the option is unknown.
    """
    scores = record.loglikelihoods
    if not scores:
        return record._replace(score=value)
    best: int | None = None
    if metric in ("acc", "exact_match", "mc1", "mc2"):
        best = max(range(len(scores)), key=scores.__getitem__)
    elif metric == "acc_norm" and len(choices) == len(scores) and all(choices):
        lengths = [len(choice) for choice in choices]
        best = max(range(len(scores)), key=lambda at: scores[at] / lengths[at])
    letter = None if best is None or best >= len(LETTERS) else LETTERS[best]
    if letter and value in (0.0, 1.0) and record.gold in LETTERS and (letter == record.gold) != bool(value):
        letter = None
    return record._replace(score=value, prediction=letter)


def finish(run: RawRun) -> None:
    """Finish a reader's records: one per question, with right and wrong or scores."""
    for entry in run.entries:
        for benchmark, metrics in entry.by_metric.items():
            for number, (metric, records) in enumerate(metrics.items()):
                kept = one_each(records, run if number == 0 else None, f"{entry.source}, {benchmark}", entry.info.id)
                metrics[metric] = settled(kept)
                if number == 0:
                    _tell_contradictions(run, f"{entry.source}, {benchmark}", entry.info.id, metric, metrics[metric])
            entry.records[benchmark] = metrics[entry.metric[benchmark]]


def _tell_contradictions(run: RawRun, where: str, who: str, metric: str, records: Sequence[Answer]) -> None:
    """Add a notice if the chosen and the right option contradict the log's score; the score is used."""
    unlike = sum(
        record.correct is not None
        and record.gold in LETTERS
        and record.prediction in LETTERS
        and (record.prediction == record.gold) != record.correct
        for record in records
    )
    unknown = sum(record.loglikelihoods is not None and record.prediction is None for record in records)
    if unlike:
        run.notice(
            where,
            f"{unlike:,} of {plural(len(records), 'answer')} of {who} {agree(unlike, 'does', 'do')} not agree"
            f" with the log's own score ({metric}): the"
            " chosen option is right but the score says wrong, or the other way round; the score is used",
        )
    if unknown and metric in ("acc", "acc_norm"):
        run.notice(
            where,
            f"{unknown:,} of {plural(len(records), 'score')} ({metric}) of {who}"
            f" {agree(unknown, 'contradicts', 'contradict')}"
            " the log-likelihoods; the score is used, and the chosen option is unknown there",
        )


def one_each(records: Sequence[Answer], run: RawRun | None, where: str, who: str) -> list[Answer]:
    """Return one record for each question.

    Equal records of a question count once; different ones do not count at all, because nothing shows which is right.
    Both cases become notices of ``run``, if it is given.
    """
    first: dict[tuple[str, str], Answer] = {}
    unlike: set[tuple[str, str]] = set()
    equal = 0
    for record in records:
        key = record.subject, record.doc_id
        known = first.setdefault(key, record)
        if known is record:
            continue
        if (known.gold, known.prediction, value_of(known)) == (record.gold, record.prediction, value_of(record)):
            equal += 1
        else:
            unlike.add(key)
    if run is not None and unlike:
        shown = ", ".join(doc_id for _, doc_id in sorted(unlike)[:3])
        run.notice(
            where,
            f"{plural(len(unlike), 'question id occurs', 'question ids occur')} more than once for {who} with"
            f" different answers ({shown}"
            f"{', …' if len(unlike) > 3 else ''}); none of these rows is counted. Is a column for the subject, the"
            " benchmark or the run missing?",
        )
    if run is not None and equal:
        run.notice(
            where,
            f"{plural(equal, 'row')} for {who} {agree(equal, 'is', 'are')} identical to an earlier row; each is"
            " counted once",
        )
    return [record for key, record in first.items() if key not in unlike]


def check(
    run: RawRun, where: str, what: str, reported: object, records: Sequence[Answer], asked: object = None
) -> None:
    """Compare the mean of ``records`` with the tool's own summary; a difference becomes a notice.

    ``asked`` is the number of questions behind the summary's figure, if it is known.
    """
    figure, number = number_or_none(reported), number_or_none(asked)
    if figure is None:
        return
    mean, n = mean_of(records)
    if mean is not None and figure > 1 and abs(mean - figure / 100) < TOLERANCE:
        figure /= 100  # the tool writes this metric in percent
    found = f"{mean:.4f} of {n}" if mean is not None else "no scored question"
    if number is not None and int(number) != n:
        run.checked(False)
        run.notice(
            where,
            f"{what} is {figure:.4f} of {plural(int(number), 'question')} in the log's own summary, but the log"
            f" contains {plural(n, 'scored question')} ({found}); this report uses the questions in the log",
        )
    elif mean is None or abs(mean - figure) > TOLERANCE:
        run.checked(False)
        run.notice(
            where,
            f"{what} is {figure:.4f} in the log's own summary, but its records give {found}; this report uses"
            " the records",
        )
    else:
        run.checked(True)


def reduced(values: Sequence[float], reducer: str) -> float:
    """Return one score for a question's epochs, as inspect_ai's reducers do.

    ``pass_at_k`` is the unbiased estimate of Chen et al. 2021 (arXiv 2107.03374); ``at_least_k`` is 1 where at
    least k epochs are right.

    Raises:
        KeyError: an unknown reducer.

    """
    simple: dict[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "median": median, "mode": mode, "max": max}
    if reducer in simple:
        return float(simple[reducer](values))
    name, _, number = reducer.rpartition("_")
    if not number.isdecimal() or name not in ("pass_at", "at_least"):
        raise KeyError(reducer)
    k, right, n = int(number), sum(value >= 1.0 for value in values), len(values)
    if name == "at_least":
        return float(right >= k)
    return 1.0 if n - right < k else 1.0 - comb(n - right, k) / comb(n, k)
