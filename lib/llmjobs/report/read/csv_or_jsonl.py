"""Read a plain CSV or JSONL with one answer per line: model, question id, answer and gold answer.

CSV files may have any common encoding and delimiter. Columns are recognised by common synonyms. Optional columns are
the subject, benchmark, settings of the model, and option probabilities (one column ``probabilities``/``loglikelihoods``
with a JSON list, or ``prob_A``, ``prob_B``, …). With gold answers and log-likelihoods the prediction can be left out. A
``score`` between 0 and 1 is partial credit.
"""

import codecs
import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from llmjobs.errors import DataError, printable
from llmjobs.report.read.json_files import (
    MAX_LINES_BYTES,
    each,
    listed,
    metrics_of,
    name_of,
    read_lines,
    read_text,
    scores_of,
)
from llmjobs.report.read.option_letters import Answers, place_of
from llmjobs.report.read.scored import LETTERS, is_graded, one_each, outside, settled, split_metrics
from llmjobs.report.study import Answer, ModelInfo, Question, RawEntry, RawRun
from llmjobs.terminal_text import agree, plural

DELIMITERS = (",", ";", "\t", "|")
CHUNK = 1 << 20
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(path: Path) -> str:
    """Return the encoding of a text file: by byte order mark, zero bytes (UTF-16), UTF-8, otherwise Windows-1252."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        start = file.read(4096)
        for mark, name in BOMS:
            if start.startswith(mark):
                return name
        even, odd = start[0::2].count(0), start[1::2].count(0)
        if max(even, odd) > len(start) / 8 and min(even, odd) == 0:
            return "utf-16-le" if odd else "utf-16-be"
        chunk = start
        try:
            while chunk:
                decoder.decode(chunk)
                chunk = file.read(CHUNK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def delimiter_of(header: str, usual: str) -> str:
    """Return the delimiter that splits the header into the most columns; ``usual`` if several do."""
    counts = {mark: len(next(csv.reader([header], delimiter=mark, skipinitialspace=True), [])) for mark in DELIMITERS}
    best = max(counts.values())
    return usual if counts[usual] == best else max(counts, key=counts.__getitem__)


def csv_lines(path: Path, run: RawRun) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV or TSV by column name; rows of a different width are counted in a notice.

    Raises:
        DataError: not a regular file, too large, or not CSV.

    """
    csv.field_size_limit(10_000_000)
    if not path.is_file() or path.stat().st_size > MAX_LINES_BYTES:
        raise DataError(f"{path.name}: is not a regular file of at most {MAX_LINES_BYTES >> 30} GiB")
    with path.open("rb") as start:
        if start.read(4) == b"PK\3\4":
            raise DataError(
                f"{path.name}: is a zip archive, not text; if it is an Excel workbook, save it as CSV first"
            )
    encoding = encoding_of(path)
    if encoding == "cp1252":
        run.notice(path.name, "is not UTF-8; read as Windows-1252")
    try:
        with path.open(encoding=encoding, errors="replace", newline="") as file:
            yield from _rows(path, run, file)
    except csv.Error as error:
        raise DataError(f"{path.name}: cannot be read as CSV ({error})") from error


def _rows(path: Path, run: RawRun, file: TextIO) -> Iterator[dict[str, Any]]:
    header, mark = _header(path, file)
    wrong: list[int] = []
    begins: set[str] = set()
    number = 1
    for number, row in enumerate(csv.reader(file, delimiter=mark, skipinitialspace=True), start=2):
        if not any(cell.strip() for cell in row):
            continue
        begins.add(row[0].strip())
        if any("\n" in cell and _holds_rows(cell, mark, len(header), begins) for cell in row):
            raise DataError(f"{path.name}: row {number} contains further rows in one cell; a quote is not closed")
        if len(row) < len(header) or any(cell.strip() for cell in row[len(header) :]):
            wrong.append(number)
            continue
        cells: dict[str, Any] = dict(zip(header, row, strict=False))
        if mark == ";":
            cells[DECIMAL_COMMA] = True
        yield cells
    if wrong:
        shown = ", ".join(map(str, wrong[:5])) + (", …" if len(wrong) > 5 else "")
        run.notice(
            path.name,
            f"{len(wrong)} of {plural(number - 1, 'row')} {agree(len(wrong), 'has', 'have')} a different number"
            f" of cells than the header ({len(header)}),"
            f" perhaps because the file is cut off or a {mark!r} is not quoted (row {shown}); not counted",
        )


def _header(path: Path, file: TextIO) -> tuple[list[str], str]:
    """Return the column names and the delimiter, skipping blank lines and Excel's ``sep=;``."""
    first = file.readline()
    while first and not first.strip():
        first = file.readline()
    if first.strip().lower().startswith("sep=") and len(first.strip()) <= 5:
        first = file.readline()
    mark = delimiter_of(first, "\t" if path.suffix.lower() == ".tsv" else ",")
    header = [name.strip() for name in next(csv.reader([first], delimiter=mark, skipinitialspace=True), [])]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        shown = printable(", ".join(twice[:3]))
        raise DataError(f"{path.name}: the header names {shown} twice; give each column its own name")
    return header, mark


def _holds_rows(cell: str, mark: str, width: int, begins: set[str]) -> bool:
    """Return whether every further line of a cell, except empty ones, would be a row with the same beginning."""
    lines = [line for line in cell.splitlines()[1:] if line.strip()]
    return bool(lines) and all(
        line.count(mark) == width - 1 and line.partition(mark)[0].strip() in begins for line in lines
    )


DECIMAL_COMMA = "\0decimal comma"
"""Marks a row of a semicolon-separated file: its numbers may be written ``0,75``."""


SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "model": ("model", "model_id", "model_name"),
    "benchmark": ("benchmark", "task", "dataset"),
    "subject": ("subject", "category", "topic"),
    "doc_id": ("doc_id", "question_id", "id", "index", "idx", "qid"),
    "gold": (
        "gold",
        "gold_answer",
        "answer_key",
        "target",
        "label",
        "correct_answer",
        "reference",
        "ground_truth",
        "expected",
    ),
    "prediction": (
        "prediction",
        "pred",
        "predicted",
        "predicted_answer",
        "predicted_label",
        "predicted_letter",
        "model_answer",
        "model_prediction",
        "model_response",
        "response",
        "answer",
    ),
    "correct": ("correct", "is_correct"),
    "score": ("score", "acc", "acc_norm", "exact_match", "em", "f1", "mc2"),
    "text": ("raw_completion", "completion", "raw", "text", "output"),
    "question": ("question", "prompt_text"),
    "choices": ("choices", "options"),
    "study": ("study",),
    "run": ("run",),
    "device": ("device",),
    "dtype": ("dtype", "precision"),
    "quantization": ("quantization", "quant"),
    "revision": ("revision",),
    "loglikelihoods": ("loglikelihoods", "logprobs", "log_likelihoods", "lls"),
    "probabilities": ("probabilities", "probs"),
    "metrics": ("metrics",),
}
METRICS = ("acc", "acc_norm", "exact_match", "em", "f1", "mc1", "mc2")
NAMES = ("model", "benchmark", "subject", "doc_id", "study", "run", "device", "dtype", "quantization", "revision")
OPTION_COLUMN = re.compile(
    r"^(?P<kind>prob|probability|p|logprob|logp|log_prob|loglikelihood|log_likelihood|loglik|ll|nll)_"
    r"(?P<option>[A-J]|\d)$",
    re.IGNORECASE,
)
RIGHT = ("1", "1.0", "true", "yes", "c", "correct", "right", "✓", "✔", "wahr", "vrai", "verdadero", "vero", "waar")
WRONG = ("0", "0.0", "false", "no", "i", "incorrect", "wrong", "✗", "✘", "falsch", "faux", "falso", "onwaar")
"""Marks of an answer; spreadsheets write true and false in the language of the user."""
WIDE = ". If each model has its own column, write one row per model and question instead"
JUDGMENTS = ({"judge", "judgment"}, {"judge", "g1_winner"})
"""Columns of FastChat's judgment files."""


class _Row(NamedTuple):
    """A row as written, before its benchmark's answers are brought to one form."""

    entry: RawEntry
    benchmark: str
    record: Answer
    marked: bool | None
    choices: tuple[str, ...]
    mark: str


def read_table(path: Path, name: str | None = None) -> RawRun:
    """Read a CSV, TSV or JSONL of answers; ``name`` is the benchmark if no column names it.

    Raises:
        DataError: a column is missing, scores are not between 0 and 1, or the numbering of options is unclear.

    """
    run = RawRun(path, "table")
    lines: Iterable[Mapping[str, Any]]
    if path.suffix == ".json":
        lines = (line for line in json.loads(read_text(path)) if isinstance(line, dict))
    else:
        lines = read_lines(path, run, path.name) if path.suffix == ".jsonl" else csv_lines(path, run)
    entries: dict[tuple[str, ...], RawEntry] = {}
    columns: dict[str, str] | None = None
    skipped = 0
    rows: list[_Row] = []

    def add(line: Mapping[str, Any]) -> bool:
        nonlocal columns
        columns = columns or find_columns(line, path)
        values = {name: line.get(column) for name, column in columns.items()}
        if values.get("doc_id") in (None, "") or values.get("model") in (None, ""):
            return False
        rows.append(_row(run, entries, name or path.stem, values, line))
        return True

    for added in each(lines, add, run, path.name):
        skipped += not added
    if columns is None:
        raise DataError(f"{path.name}: contains no readable row")
    if skipped:
        run.notice(path.name, f"{plural(skipped, 'row does', 'rows do')} not name a model or a question; not counted")
    run.entries = list(entries.values())
    metric = columns.get("score", "").strip().lower()
    binary = "" if {"correct", "gold"} & set(columns) else metric
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        _benchmark(run, benchmark, [row for row in rows if row.benchmark == benchmark], metric, binary)
    _only_marks(run)
    return run


def find_columns(line: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Match the columns with their synonyms.

    Raises:
        DataError: a column is missing.

    """
    found: dict[str, str] = {}
    lower = {str(column).strip().lower(): column for column in line if column not in (None, DECIMAL_COMMA)}
    if any(marks <= set(lower) for marks in JUDGMENTS):
        raise DataError(
            f"{path.name}: contains FastChat judgments, not answers with a gold answer; list the file under"
            " 'mtbench: judgments:' in a manifest and run 'llmjobs mtbench', then report on that run"
        )
    if {"answer_id", "choices"} <= set(lower):
        raise DataError(
            f"{path.name}: contains FastChat answers, which have no gold answers; list the file under"
            " 'mtbench: answers:' in a manifest and run 'llmjobs mtbench' to have them judged"
        )
    for name, synonyms in SYNONYMS.items():
        for synonym in synonyms:
            if synonym in lower and lower[synonym] not in found.values():
                found[name] = lower[synonym]
                break
    if "gold" not in found and "answer" in lower and found.get("prediction") not in (None, lower["answer"]):
        found["gold"] = lower["answer"]
    scored = (
        "loglikelihoods" in found or "probabilities" in found or sum(map(bool, map(OPTION_COLUMN.match, lower))) > 1
    )
    missing = [name for name in ("model", "doc_id") if name not in found]
    if "correct" not in found and "score" not in found:
        missing += [n for n in ("gold", "prediction") if n not in found and not (n == "prediction" and scored)]
    if missing:
        shown = printable(", ".join(map(str, lower)))[:300]
        wide = WIDE if "gold" in found and {"model", "prediction"} <= set(missing) else ""
        raise DataError(
            f"{path.name}: no column for {', '.join(missing)}; a table of answers needs a first row that names its"
            " columns: a model, a question id, and one of: the answer and the gold answer; log-likelihoods (ll_A, ll_B,"
            f" …) and the gold answer; 'correct'; 'score'; found: {shown}{wide}"
        )
    return found


def _row(
    run: RawRun,
    entries: dict[tuple[str, ...], RawEntry],
    benchmark_name: str,
    values: Mapping[str, Any],
    line: Mapping[str, Any],
) -> _Row:
    text = {name: "" if _absent(values.get(name)) else str(values[name]).strip() for name in SYNONYMS}
    text |= {key: name_of(text[key]) for key in NAMES}
    text["doc_id"] = re.sub(r"^(\d+)\.0$", r"\1", text["doc_id"])
    identity = tuple(text[k] for k in ("study", "run", "model", "revision", "device", "dtype", "quantization"))
    if identity not in entries:
        study, source, model, revision, device, dtype, quantization = identity
        info = ModelInfo(model, revision, device, dtype, quantization, study, source)
        entries[identity] = RawEntry(info, "/".join(part for part in (run.path.name, study, source) if part))
    subject = text["subject"] or "all"
    benchmark = text["benchmark"] or name_of(benchmark_name)
    choices = tuple(map(str, listed(values.get("choices")) or _json_list(values.get("choices")) or ()))
    if text["question"]:
        run.questions[benchmark, subject, text["doc_id"]] = Question(text["question"], choices)
    comma = DECIMAL_COMMA in line
    score = _number(values.get("score"), comma)
    record = Answer(
        subject=subject,
        doc_id=text["doc_id"],
        gold=text["gold"],
        prediction=text["prediction"] or None,
        correct=None,
        status="ok",
        loglikelihoods=scores_of(_option_scores(values, line, comma)),
        metrics=_metrics(values.get("metrics"), line, comma),
        text=text["text"] or None,
        score=score,
    )
    marked = _mark(values.get("correct"))
    if marked is not None and score is not None and record.metrics is None:
        record = record._replace(metrics={"score": score}, score=None)
    if "correct" in values and marked is None and (value := _number(values["correct"], comma)) is not None:
        record = record._replace(score=value)  # a column of shares named 'correct'
    return _Row(entries[identity], benchmark, record, marked, choices, text["correct"])


def _metrics(given: Any, line: Mapping[str, Any], comma: bool) -> dict[str, float] | None:
    """Return a row's metrics: from one column with an object, or from several columns named after metrics."""
    found = metrics_of(given) or metrics_of(_json_object(given))
    if found:
        return found
    names = {str(column).strip().lower(): column for column in line if column is not None}
    numbers = {name: _number(line[names[name]], comma) for name in METRICS if name in names}
    kept = {name: value for name, value in numbers.items() if value is not None}
    return kept if len(kept) > 1 else None


FEW = 10
"""From this many answers on, it is odd that none of them is ever a gold answer."""


def _benchmark(run: RawRun, benchmark: str, rows: Sequence[_Row], metric: str, binary: str) -> None:
    """Bring the rows of one benchmark to one form, and assign them to their models.

    ``metric`` names the column of partial credit, ``binary`` that of right and wrong if there is nothing else.
    """
    where = f"{run.path.name}, {benchmark}"
    if outside([row.record for row in rows]):
        highest = max(row.record.score for row in rows if row.record.score is not None)
        lowest = min(row.record.score for row in rows if row.record.score is not None)
        raise DataError(
            f"{where}: scores range from {lowest:g} to {highest:g}; a score must be between 0 and 1"
            + (" (divide percentages by 100)" if 1 < highest <= 100 and lowest >= 0 else "")
        )
    graded = is_graded([row.record for row in rows if row.marked is None])
    scored = all(row.record.prediction is None for row in rows) and any(row.record.loglikelihoods for row in rows)
    form = Answers(where, ((row.record, row.choices) for row in rows))
    if form.mixed and not form.places:
        shown = ", ".join(repr(printable(text)[:20]) for text in form.no_letters[:3])
        run.notice(
            where,
            f"some answers are an option's letter, but some gold answers are not ({shown}); all are compared as"
            " written",
        )
    oddities = _Oddities()
    kept: dict[int, tuple[RawEntry, list[Answer]]] = {}
    for row in rows:
        record = _graded(row, oddities) if graded else _scored(row, form, oddities, scored)
        kept.setdefault(id(row.entry), (row.entry, []))[1].append(record)
    for entry, records in kept.values():
        entry.records[benchmark] = settled(one_each(records, run, where, entry.info.id))
        if graded or (binary and not any(record.metrics for record in records)):
            entry.metric[benchmark] = (metric if graded else binary) or "score"
            entry.by_metric[benchmark] = {entry.metric[benchmark]: entry.records[benchmark]}
        elif any(record.metrics for record in records):
            choices = {(row.record.subject, row.record.doc_id): row.choices for row in rows}
            split_metrics(entry, benchmark, choices)
    oddities.tell(run, where, len(rows))
    _differently_numbered(run, where, [row.record for row in rows])
    _never_right(run, where, [record for _, records in kept.values() for record in records])


def _never_right(run: RawRun, where: str, records: Sequence[Answer]) -> None:
    """Point out that no prediction is ever one of the gold answers, as with "yes" against "Yes, it is"."""
    read = [record for record in records if record.status == "ok" and record.prediction and record.gold]
    gold, said = {record.gold for record in read}, {str(record.prediction) for record in read}
    none_right = not any(record.correct or record.score for record in records)
    if len(read) >= FEW and none_right and gold.isdisjoint(said):
        shown = [", ".join(repr(printable(text)[:20]) for text in sorted(texts)[:3]) for texts in (gold, said)]
        run.notice(
            where,
            f"no prediction ({shown[1]}) is ever one of the gold answers ({shown[0]}): check that both are written"
            " alike",
        )


class _Oddities:
    """Counts of unusual rows of a benchmark."""

    def __init__(self) -> None:
        self.contradicted = self.by_length = self.unread = self.case = self.no_mark = self.no_scores = 0
        self.no_score = 0
        self.example = ""

    def tell(self, run: RawRun, where: str, rows: int) -> None:
        """Add a notice for each count."""
        if self.contradicted:
            run.notice(
                where,
                f"'correct' contradicts gold answer and prediction in {self.contradicted:,} of"
                f" {plural(rows, 'row')}; the letters are used",
            )
        if self.by_length:
            run.notice(
                where,
                f"'correct' contradicts the largest log-likelihood in {self.by_length:,} of {plural(rows, 'row')} (were"
                " they normalized by length?); 'correct' is used, and the chosen option of these rows is unknown",
            )
        if self.unread:
            run.notice(
                where,
                f"{self.unread:,} of {plural(rows, 'prediction')} {agree(self.unread, 'is', 'are')} not an"
                f" option's letter ({printable(self.example)[:40]!r}); counted as unreadable",
            )
        if self.case:
            run.notice(
                where,
                f"{self.case:,} of {plural(rows, 'prediction')} {agree(self.case, 'differs', 'differ')} from"
                " the gold answer"
                " only in case, spaces or number format; this counts as right (to decide this yourself, add a"
                " column 'correct')",
            )
        if self.no_scores:
            run.notice(
                where,
                f"the log-likelihoods of {self.no_scores:,} of {plural(rows, 'row')} cannot be parsed;"
                f" {agree(self.no_scores, 'it is', 'these are')} left out",
            )
        if self.no_score:
            run.notice(
                where,
                f"{self.no_score:,} of {plural(rows, 'row')} {agree(self.no_score, 'has', 'have')} no score that"
                f" is a number; {agree(self.no_score, 'it is', 'these are')} left out",
            )
        if self.no_mark:
            seen = f" ({printable(self.example)[:40]!r})" if self.example else ""
            what = f"{agree(self.no_mark, 'is', 'are')} marked neither right nor wrong{seen}"
            if 2 * self.no_mark > rows:  # the few others are hardly a sample of the questions
                some = "" if self.no_mark == rows else f"{self.no_mark:,} of "
                raise DataError(f"{where}: {some}{plural(rows, 'row')} {what}; write 1 for right and 0 for wrong")
            run.notice(
                where,
                f"{self.no_mark:,} of {plural(rows, 'row')} {what} and left out; write 1 for right and 0 for wrong",
            )


def _graded(row: _Row, oddities: _Oddities) -> Answer:
    if row.marked is not None:
        return row.record._replace(score=float(row.marked))
    if row.record.score is None:
        oddities.no_score += 1
        return row.record._replace(status="error", prediction=None)
    return row.record


def _differently_numbered(run: RawRun, where: str, records: Sequence[Answer]) -> None:
    """Add a notice if gold answers count options from 1 and predictions from 0, or the other way round."""
    both = [record for record in records if record.gold and record.prediction]
    golds = {place_of(record.gold) for record in both}
    said = {place_of(record.prediction or "") for record in both}
    numbers = [sorted(place for place in places if place is not None) for places in (golds, said)]
    if None in golds | said or len(golds) < 3 or len(said) < 3 or golds == said:
        return
    (low, *_, high), (first, *_, last) = numbers
    if high < 10 and sorted((low, first)) == [0, 1] and high - last == low - first and _all_between(numbers):
        run.notice(
            where,
            f"the gold answers are {low} to {high}, but the predictions {first} to {last}; they are compared as"
            " written. If both are option numbers, make both start at the same number, or use letters",
        )


def _all_between(numbers: Sequence[Sequence[int]]) -> bool:
    return all(list(places) == list(range(places[0], places[-1] + 1)) for places in numbers)


def _scored(row: _Row, form: Answers, oddities: _Oddities, by_scores: bool) -> Answer:
    """Decide whether a row is right: by its letters, otherwise by its mark, otherwise by equal text.

    With ``by_scores``, log-likelihoods are the table's only answers, so a row without them is an error.
    """
    raw, choices = row.record, row.choices
    if by_scores and not raw.loglikelihoods and row.marked is None and raw.score is None:
        oddities.no_scores += 1
        return raw._replace(status="error", gold=form.gold(raw.gold, choices))
    gold = form.gold(raw.gold, choices)
    prediction = form.prediction(raw.prediction, choices)
    marked = row.marked if row.marked is not None else None if raw.score is None else raw.score == 1.0
    chosen = _largest(raw.loglikelihoods) if raw.prediction is None and (form.of_options or not raw.gold) else None
    if chosen is not None:
        prediction = chosen
    record = raw._replace(gold=gold, prediction=prediction, score=None)
    if not gold:
        if marked is None and row.marked is None and not raw.gold and raw.prediction is None and chosen is None:
            oddities.no_mark, oddities.example = oddities.no_mark + 1, oddities.example or row.mark
            return record._replace(status="error")
        return record._replace(correct=marked, status="ok")
    if raw.prediction and prediction is None:
        oddities.unread, oddities.example = oddities.unread + 1, oddities.example or raw.prediction
        record = record._replace(text=raw.text or raw.prediction)
        return (
            record._replace(status="ok", correct=True) if marked else record._replace(status="unparsed", correct=False)
        )
    if prediction is None:
        return _without_answer(record, marked, form, oddities)
    right = prediction == gold
    if marked is None:
        return record._replace(correct=True) if right else _not_quite(record, form, oddities)
    if marked != right and form.of_options:
        if chosen is not None:
            oddities.by_length += 1
            return record._replace(correct=marked, prediction=None)
        oddities.contradicted += 1
        return record._replace(correct=right)
    return record._replace(correct=marked)


def _not_quite(record: Answer, form: Answers, oddities: _Oddities) -> Answer:
    """Count an answer that differs from the gold answer only in form; anything else is wrong."""
    if form.of_options or record.prediction is None or not _alike(record.prediction, record.gold):
        return record._replace(correct=False)
    oddities.case += 1
    return record._replace(correct=True, prediction=record.gold)


def _without_answer(record: Answer, marked: bool | None, form: Answers, oddities: _Oddities) -> Answer:
    """Use the mark if the table has no answers at all; otherwise a row without an answer is an unreadable reply."""
    if marked is not None and not form.answered:
        return record._replace(correct=marked)
    oddities.contradicted += marked is True
    return record._replace(status="unparsed", correct=False)


def _alike(prediction: str, gold: str) -> bool:
    """Return whether two texts differ only in case, blanks or number format."""
    numbers = [_number(text.replace(",", "").strip("$ ")) for text in (prediction, gold)]
    same = numbers[0] is not None and numbers[0] == numbers[1] and any(map(str.isdigit, gold))
    return same or prediction.lower().split() == gold.lower().split()


def _largest(scores: Sequence[float] | None) -> str | None:
    if not scores or len(scores) > len(LETTERS):
        return None
    return LETTERS[max(range(len(scores)), key=scores.__getitem__)]


def _absent(value: Any) -> bool:
    """Return whether a cell is empty: null, or the NaN that data frames write for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _mark(value: Any) -> bool | None:
    """Read true or false in any common form."""
    word = str(value).strip().lower()
    return True if word in RIGHT else False if word in WRONG else None


def _number(value: Any, comma: bool = False) -> float | None:
    """Return a number, or a word for right or wrong as a number; None for anything else."""
    if (mark := _mark(value)) is not None:
        return float(mark)
    text = str(value).strip()
    share = text.endswith("%")
    text = text.removesuffix("%").rstrip()
    try:
        number = float(text.replace(",", ".") if comma else text) / (100 if share else 1)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _json_list(value: Any) -> list[Any] | None:
    found = _json(value, "[")
    return found if isinstance(found, list) else None


def _json_object(value: Any) -> Any:
    return _json(value, "{")


def _json(value: Any, start: str) -> Any:
    if not isinstance(value, str) or not value.startswith(start):
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _option_scores(values: Mapping[str, Any], line: Mapping[str, Any], comma: bool) -> list[float] | None:
    """Return log-likelihoods, given as such or as probabilities, in one column or one per option."""
    given = values.get("loglikelihoods")
    numbers = given if isinstance(given, list) else _json_list(given)
    if numbers is not None:
        return numbers
    given = values.get("probabilities")
    shares = given if isinstance(given, list) else _json_list(given)
    sign, logs = 1.0, False
    if shares is None:
        found = [(m, name) for name in line if isinstance(name, str) and (m := OPTION_COLUMN.match(name))]
        kinds = [m["kind"].lower() for m, _ in found]
        logs, sign = bool(kinds) and kinds[0] not in ("p", "prob", "probability"), -1.0 if "nll" in kinds else 1.0
        ordered = sorted((m["option"].upper(), name) for m, name in found if m["kind"].lower() == kinds[0])
        cells = [line[name] for _, name in ordered]
        while cells and cells[-1] in (None, ""):  # questions with fewer options leave the last columns empty
            cells.pop()
        shares = [_number(cell, comma) for cell in cells]
    try:
        numbers = [float(x) for x in shares]
    except (TypeError, ValueError, OverflowError):
        return None
    if logs or (numbers and max(numbers) <= 0):  # probabilities are never negative, so these are their logarithms
        return [sign * x for x in numbers]
    return None if any(x < 0 for x in numbers) else [math.log(max(x, 1e-300)) for x in numbers] or None


def _only_marks(run: RawRun) -> None:
    """Add a notice if a log contains right and wrong but no answers, which some analyses need."""
    for entry in run.entries:
        records = [record for part in entry.records.values() for record in part]
        if records and all(
            record.prediction is None and (record.status == "ok" or not record.gold) for record in records
        ):
            what = "scores are" if any(map(is_graded, entry.records.values())) else "right and wrong are"
            run.notice(
                entry.source,
                f"{entry.info.id}: only {what} recorded, no answers; "
                "letters, same wrong answers and unreadable replies cannot be analysed",
            )
