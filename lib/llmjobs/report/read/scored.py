"""What every reader does with a log's scores: one record a question, every metric by itself, checked against the tool.

A reader gives each metric's records with ``score`` set. :func:`keep` decides whether the metric is right or wrong or
a mean score, :func:`one_each` sees to repeated ids, and :func:`check` compares the mean with the figure that the
tool itself wrote.
"""

from collections.abc import Callable, Mapping, Sequence
from math import comb
from statistics import fmean, median, mode

from llmjobs.report.read.json_files import number_or_none
from llmjobs.report.study import Answer, RawEntry, RawRun

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
TOLERANCE = 1e-4
"""Two figures that differ by no more than this are one figure that was rounded."""


def value_of(record: Answer) -> float | None:
    """Return what a record counts in a mean: its score, or 1 for right and 0 for wrong."""
    return record.score if record.score is not None else None if record.correct is None else float(record.correct)


def mean_of(records: Sequence[Answer]) -> tuple[float | None, int]:
    """Return the mean over the scored records, and how many they are."""
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
    """Return whether some scores are no shares between 0 and 1."""
    return any(record.score is not None and not 0 <= record.score <= 1 for record in records)


def keep(entry: RawEntry, benchmark: str, metric: str, records: Sequence[Answer]) -> None:
    """Add records of one metric to an entry; the first metric of a benchmark is the one that counts."""
    entry.metric.setdefault(benchmark, metric)
    entry.by_metric.setdefault(benchmark, {}).setdefault(metric, []).extend(records)


def split_metrics(entry: RawEntry, benchmark: str, choices: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """Give every metric that the records of a benchmark carry its own records.

    The one that says the same as ``correct`` on every record is what ``correct`` was computed from. ``choices`` are
    the options of a question, where they are known.
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
    """Score a record by a metric, and add the option that the metric takes.

    ``acc`` takes the largest log-likelihood, ``acc_norm`` the largest one a character. Where that disagrees with the
    score, or the metric is another one, the option is not known.
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
    """Settle what a reader kept: one record a question, right and wrong or scores."""
    for entry in run.entries:
        for benchmark, metrics in entry.by_metric.items():
            for number, (metric, records) in enumerate(metrics.items()):
                kept = one_each(records, run if number == 0 else None, f"{entry.source}, {benchmark}", entry.info.id)
                metrics[metric] = settled(kept)
                if number == 0:
                    _tell_contradictions(run, f"{entry.source}, {benchmark}", entry.info.id, metric, metrics[metric])
            entry.records[benchmark] = metrics[entry.metric[benchmark]]


def _tell_contradictions(run: RawRun, where: str, who: str, metric: str, records: Sequence[Answer]) -> None:
    """Say it when the option chosen and the right one do not make what the log scored; the score counts."""
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
            f"{unlike:,} of {len(records):,} answers of {who} do not agree with the log's own score ({metric}): the"
            " chosen option is right but the score says wrong, or the other way round; the score is used",
        )
    if unknown and metric in ("acc", "acc_norm"):
        run.notice(
            where,
            f"{unknown:,} of {len(records):,} scores ({metric}) of {who} are not what the log-likelihoods give; the"
            " score is used, and for these the chosen option is unknown",
        )


def one_each(records: Sequence[Answer], run: RawRun | None, where: str, who: str) -> list[Answer]:
    """Return one record for each question.

    Equal records of one question count once; of unlike ones none counts, since nothing says which is right.
    Both are told in ``run``, where it is given.
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
        what = "question id occurs" if len(unlike) == 1 else "question ids occur"
        run.notice(
            where,
            f"{len(unlike)} {what} more than once for {who} with different answers ({shown}"
            f"{', …' if len(unlike) > 3 else ''}); none of these rows is counted. Is a column for the subject, the"
            " benchmark or the run missing?",
        )
    if run is not None and equal:
        run.notice(where, f"{equal} rows for {who} are identical to an earlier row; each is counted once")
    return [record for key, record in first.items() if key not in unlike]


def check(run: RawRun, where: str, what: str, told: object, records: Sequence[Answer], asked: object = None) -> None:
    """Compare the mean of ``records`` with what the tool's own summary says; a difference becomes a notice.

    ``asked`` is the number of questions that the summary's figure is about, where it says so.
    """
    figure, number = number_or_none(told), number_or_none(asked)
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
            f"{what} is {figure:.4f} of {int(number)} questions in the log's own summary, but the log holds {n} scored"
            f" questions ({found}); this report uses the questions in the log",
        )
    elif mean is None or abs(mean - figure) > TOLERANCE:
        run.checked(False)
        run.notice(
            where,
            f"{what} is {figure:.4f} in the log's own summary, but {found} by its records; this report counts the"
            " records",
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
