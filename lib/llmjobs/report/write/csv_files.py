"""Write ``summary.csv``, ``pairs.csv``, ``overlap.csv``, ``mtbench.csv`` and the report's part of ``summary.json``."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmjobs import file_operations
from llmjobs.report.blocks import Block, Finding, Table
from llmjobs.report.measure import Measures
from llmjobs.report.study import Benchmark, Cost, RawRun

Cell = str | int | float | None
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A spreadsheet reads a cell that starts with one of these as a formula; the wide forms are used in Japanese."""


def write_tables(measures: Measures, findings: Sequence[Finding], folder: Path) -> list[Path]:
    """Write all tables below ``folder`` and return their paths."""
    files = {
        "summary.csv": _csv(SUMMARY, _summary_rows(measures)),
        "pairs.csv": _csv(PAIRS, _pair_rows(measures)),
        "overlap.csv": _csv(OVERLAP, _overlap_rows(measures)),
    }
    if letters := list(_letter_rows(measures)):
        files["letters.csv"] = _csv(LETTERS, letters)
    if calibrated := list(_calibration_rows(measures)):
        files["calibration.csv"] = _csv(CALIBRATION, calibrated)
    if rated := list(_mtbench_rows(measures.study.runs)):
        files["mtbench.csv"] = _csv(MTBENCH, rated)
    if measures.scores:
        files["scores.csv"] = _csv(SCORES, _score_rows(measures))
    for name, text in files.items():
        file_operations.write_whole(folder / name, text.encode())
    return [*(folder / name for name in files), _write_summary(measures, findings, folder / "summary.json")]


def write_long_tables(blocks: Sequence[Block], folder: Path) -> list[Path]:
    """Write every row of tables that the PDF cuts and that no other file contains; return the paths."""
    written = []
    for block in blocks:
        if isinstance(block, Table) and block.long and not block.cut.all_in:
            path = folder / block.file_name
            with file_operations.clear_errors(path.parent):
                file_operations.make_folder(path.parent)
            file_operations.write_whole(path, _csv([column.title for column in block.columns], block.rows).encode())
            written.append(path)
    return written


def safe_cell(value: Cell) -> Cell:
    """Return a text that no spreadsheet executes: an apostrophe precedes what would be a formula."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) or value.lstrip().startswith(FORMULA) else value
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.8g}")
    return value


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([safe_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


SUMMARY = (
    "benchmark",
    "subject",
    "model",
    "model_id",
    "device",
    "dtype",
    "quantization",
    "engine",
    "n",
    "right",
    "acc",
    "low",
    "high",
    "macro_acc",
    "macro_low",
    "macro_high",
    "unparsed",
    "errors",
    "real_s",
    "cpu_s",
    "gpu_s",
    "questions_per_s",
    "peak_rss_bytes",
    "needed_bytes",
    "peak_device_bytes",
    "energy_j",
)


def _summary_rows(measures: Measures) -> Iterable[Sequence[Cell]]:
    """One row per model and benchmark (subject empty), then one per subject."""
    for name, found in measures.accuracy.items():
        for model in found.models:
            entry = measures.study.entries[model.entry]
            info, cost = entry.info, entry.cost or Cost()
            who = (entry.label, info.id, info.device, info.dtype, info.quantization, info.engine)
            yield (
                name,
                "",
                *who,
                model.n,
                model.right,
                *model.interval,
                *model.macro,
                model.unparsed,
                model.errors,
                cost.real_s,
                cost.cpu_s,
                cost.gpu_s,
                cost.questions_per_s,
                cost.peak_rss_bytes,
                cost.needed_bytes,
                cost.peak_device_bytes,
                cost.energy_j,
            )
            if len(found.subjects) > 1:
                for place, subject in enumerate(found.subjects):
                    asked, right = found.subject_scored[model.row, place], found.subject_right[model.row, place]
                    line = (name, subject, *who, int(asked), int(right), *found.subject_interval(model.row, place))
                    yield *line, *[None] * (len(SUMMARY) - len(line))


PAIRS = (
    "benchmark",
    "first",
    "second",
    "n",
    "difference",
    "low",
    "high",
    "stderr",
    "only_first",
    "only_second",
    "p",
    "p_holm",
    "clustered_low",
    "clustered_high",
    "answers_differ",
    "family",
    "together_low",
    "together_high",
)


def _pair_rows(measures: Measures) -> Iterable[Sequence[Cell]]:
    for benchmark in measures.study.benchmarks:
        for pair in measures.pairs[benchmark.name]:
            result = pair.result
            yield (
                benchmark.name,
                *_names(measures, benchmark, pair.first, pair.second),
                result.n,
                result.difference,
                result.low,
                result.high,
                result.stderr,
                result.only_first,
                result.only_second,
                result.p,
                pair.p_holm,
                *pair.clustered,
                pair.changed,
                pair.family,
                *pair.together,
            )


SCORES = ("benchmark", "metric", "counts", "kind", "model", "model_id", "n", "mean", "low", "high")


def _score_rows(measures: Measures) -> Iterable[Sequence[Cell]]:
    """One row per metric and model."""
    for scores in measures.scores:
        table = scores.table
        for model in scores.models:
            entry = measures.study.entries[model.entry]
            kind = "mean score" if table.graded else "right"
            counts = "yes" if table.counts else "no"
            yield table.benchmark, table.name, counts, kind, entry.label, entry.info.id, model.n, *model.interval


LETTERS = ("benchmark", "model", "letter", "chosen", "right")


def _letter_rows(measures: Measures) -> Iterable[Sequence[Cell]]:
    """One row per model and letter: how often it is chosen, and how often it is right."""
    for benchmark in measures.study.benchmarks:
        for model in measures.patterns[benchmark.name]:
            for place, (chosen, right) in enumerate(zip(model.chosen, model.gold, strict=True)):
                name = measures.label(benchmark, model.row)
                yield benchmark.name, name, benchmark.letter(place), int(chosen), int(right)


CALIBRATION = ("benchmark", "model", "n", "confidence", "accuracy", "ece", "brier", "auroc")


def _calibration_rows(measures: Measures) -> Iterable[Sequence[Cell]]:
    """One row per model whose option probabilities are recorded."""
    for benchmark in measures.study.benchmarks:
        for model in measures.patterns[benchmark.name]:
            if (c := model.calibration) is not None:
                name = measures.label(benchmark, model.row)
                yield benchmark.name, name, c.n, c.confidence, c.accuracy, c.ece, c.brier, c.auroc


OVERLAP = (
    "benchmark",
    "first",
    "second",
    "n",
    "first_wrong",
    "second_wrong",
    "both_wrong",
    "expected",
    "expected_in_subjects",
    "p",
    "phi",
    "jaccard",
    "jaccard_expected",
    "kappa",
    "capa",
    "capa_from",
    "both_wrong_read",
    "same_wrong",
    "same_wrong_chance",
    "same_wrong_habit",
    "same_wrong_p",
    "p_holm",
    "more_than_expected",
    "more_low",
    "more_high",
)


def _overlap_rows(measures: Measures) -> Iterable[Sequence[Cell]]:
    for name, found in measures.overlap.items():
        for pair in found.pairs:
            e, same = pair.errors, pair.same
            yield (
                name,
                *_names(measures, found.benchmark, pair.first, pair.second),
                e.n,
                e.first_wrong,
                e.second_wrong,
                e.both_wrong,
                e.expected,
                e.expected_in_strata,
                e.p,
                e.phi,
                e.jaccard,
                e.jaccard_expected,
                e.kappa,
                pair.capa,
                pair.capa_from,
                same.n,
                same.same,
                same.chance,
                same.habit,
                same.p,
                pair.p_holm,
                *pair.excess,
            )


def _names(measures: Measures, benchmark: Benchmark, *rows: int) -> list[str]:
    return [measures.label(benchmark, row) for row in rows]


def _write_summary(measures: Measures, findings: Sequence[Finding], path: Path) -> Path:
    """Put the report's part into ``summary.json``; the jobs' parts stay unchanged."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        whole = {}
    whole = whole if isinstance(whole, dict) else {}
    whole["report"] = {
        "partial": measures.study.partial,
        "findings": [{"number": f.number, "sentence": f.sentence, "alarm": f.alarm} for f in findings],
        "notices": [{"where": n.where, "what": n.what} for n in measures.study.notices],
        "summary": [dict(zip(SUMMARY, map(_json_cell, row), strict=True)) for row in _summary_rows(measures)],
        "pairs": [dict(zip(PAIRS, map(_json_cell, row), strict=True)) for row in _pair_rows(measures)],
        "overlap": [dict(zip(OVERLAP, map(_json_cell, row), strict=True)) for row in _overlap_rows(measures)],
        "scores": [dict(zip(SCORES, map(_json_cell, row), strict=True)) for row in _score_rows(measures)],
        "missed_by_all": [_missed(measures, name) for name in measures.overlap],
    }
    file_operations.write_whole(
        path, (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")
    )
    return path


def _json_cell(value: Cell) -> Cell:
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.8g}")
    return value


def _missed(measures: Measures, name: str) -> dict[str, Any]:
    found = measures.overlap[name]
    benchmark = found.benchmark
    return {
        "benchmark": name,
        "questions": len(found.columns),
        "missed_by": [int(number) for number in found.missed_by],
        "expected": [round(float(number), 3) for number in found.expected],
        "p": round(found.all_p, 6),
        "more_than_expected": [round(float(number), 3) for number in found.excess],
        "same_wrong_share": _json_cell(found.same_answer.share) if found.same_answer else None,
        "same_wrong_habit": _json_cell(found.same_answer.habit) if found.same_answer else None,
        "same_wrong_p": _json_cell(found.same_answer.p) if found.same_answer else None,
        "oracle": round(found.oracle.value, 6),
        "majority": round(found.majority.value, 6),
        "doc_ids": [[str(benchmark.subject[column]), benchmark.doc_id[column]] for column in found.all_missed],
    }


MTBENCH = ("run", "judge", "agent", "less", "turn", "category", "n", "unread", "score", "low", "high", "p", "p_holm")
"""``less`` names the second agent of a difference: ``score`` is the first one's mean minus the second one's."""


def _mtbench_rows(runs: Sequence[RawRun]) -> Iterable[Sequence[Cell]]:
    """Yield a row for each mean (overall, by turn, by category), then one for each pair of agents of a judge."""
    for run in runs:
        part = run.summary.get("mtbench")
        if not isinstance(part, Mapping):
            continue
        for row in part.get("scores") or ():
            who = (run.path.name, row["judge"], row["model"], "")
            yield (*who, "", "", *_rating_figures(row))
            for one in row["by_turn"]:
                yield (*who, one["turn"], "", *_rating_figures(one))
            for one in row["by_category"]:
                yield (*who, "", one["category"], *_rating_figures(one))
        for row in part.get("differences") or ():
            yield (
                run.path.name, row["judge"], row["first"], row["second"], "", "", row["n"], None, row["difference"],
                row["low"], row["high"], row["p"], row["p_holm"],
            )  # fmt: skip


def _rating_figures(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["n"], row["unread"], row["score"], row["low"], row["high"], None, None)
