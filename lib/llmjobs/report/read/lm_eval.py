"""Read lm-evaluation-harness: ``samples_TASK_DATE.jsonl`` and, beside them, ``results_DATE.json``.

Every metric of every filter is kept separately, named as in the results file (``exact_match,strict-match``). The report
uses the metric by which the benchmark is usually quoted (``acc_norm`` of HellaSwag, as in our own runs), otherwise the
first one of the task's ``metric_list``, and the first filter. All are compared with the figures in the results file.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmjobs.benchmarks.registry import benchmark_class, names
from llmjobs.report.read.json_files import (
    each,
    listed,
    mapping,
    name_of,
    number_or_none,
    read_json,
    read_lines,
    scores_of,
)
from llmjobs.report.read.scored import LETTERS, check, choose, finish, keep, outside
from llmjobs.report.study import Answer, Cost, ModelInfo, Question, RawEntry, RawRun
from llmjobs.terminal_text import plural

NAME = re.compile(r"^samples_(?P<task>.+?)(_(?P<date>\d{4}-\d{2}-\d{2}T[\d\-.:]+))?\.jsonl$")
GROUPS = (
    "mmlu",
    "mmlu_continuation",
    "mmlu_flan_cot_fewshot",
    "mmlu_flan_cot_zeroshot",
    "mmlu_flan_n_shot_generative",
    "mmlu_flan_n_shot_loglikelihood",
    "mmlu_generative",
    "mmlu_pro",
    "mmlu_redux",
    "bbh",
    "agieval",
    "cmmlu",
    "ceval",
)
"""Benchmarks whose subjects are separate tasks: ``mmlu_astronomy`` is astronomy of mmlu."""
METRICS = ("acc", "exact_match", "acc_norm", "mc1", "mc2", "em", "f1")
"""Possible metrics of older logs, which do not name theirs."""
TEXTS = ("question", "query", "question_stem", "ctx", "goal", "sentence", "problem", "passage", "text")
"""Where a document has its question; the first key that exists is used."""
RENAMED = {("truthfulqa_mc2", "acc"): "mc2"}
"""What lm-eval calls acc here is the probability of the true options."""
OUTPUT_TYPES = {
    "multiple_choice": "loglikelihood",
    "loglikelihood": "loglikelihood",
    "generate_until": "generate_until",
}


def sample_files(path: Path) -> list[Path]:
    """Return the sample files of a folder, or of the folders in it, at most two levels deep."""
    for pattern in ("samples_*.jsonl", "*/samples_*.jsonl", "*/*/samples_*.jsonl"):
        if found := sorted(path.glob(pattern)):
            return found
    return []


def read_lm_eval(path: Path, files: Sequence[Path] | None = None) -> RawRun:
    """Read a folder of lm-eval's output; if a folder has several files for one task, the newest is used."""
    run = RawRun(path, "lm-eval log", in_parts=True)
    newest: dict[tuple[Path, str], tuple[str, Path]] = {}
    for file in files or sample_files(path):
        match = NAME.match(file.name)
        task, date = (match["task"], match["date"] or "") if match else (file.stem, "")
        earlier = newest.get((file.parent, task))
        if earlier:
            old = min((date, file), earlier)[1]
            run.notice(old.name, "an older log of the same task; only the newest is used")
        newest[file.parent, task] = max((date, file), earlier or ("", file))
    for folder in sorted({folder for folder, _ in newest}):
        tasks = {task: found for (place, task), found in newest.items() if place == folder}
        run.entries.append(_entry(run, folder, tasks, whole=files is None))
    finish(run)
    return run


def _entry(run: RawRun, folder: Path, tasks: Mapping[str, tuple[str, Path]], whole: bool) -> RawEntry:
    results = _results(run, folder)
    last = results[max(results)] if results else {}
    entry = RawEntry(_info(folder, last), folder.name)
    seconds = 0.0
    for date in {date for date, _ in tasks.values()}:
        log = results.get(date) or (last if len(results) == 1 else {})
        seconds += number_or_none(_as_number(log.get("total_evaluation_time_seconds"))) or 0.0
    for task, (date, file) in sorted(tasks.items()):
        log = results.get(date) or next((r for r in results.values() if task in mapping(r.get("results"))), last)
        benchmark, subject = split_task(task)
        config = mapping(mapping(log.get("configs")).get(task))
        entry.protocol_of(benchmark, subject, _protocol(log, config, task))
        _metrics(run, entry, file, task, log)
    if whole and last:
        _without_samples(run, folder, tasks, results.values())
    questions = sum(len(next(iter(found.values()), ())) for found in entry.by_metric.values())
    entry.cost = Cost(real_s=seconds, questions=questions) if seconds else None
    return entry


def _info(folder: Path, results: Mapping[str, Any]) -> ModelInfo:
    config = mapping(results.get("config"))
    given = config.get("model_args")
    arguments = ",".join(f"{k}={v}" for k, v in given.items()) if isinstance(given, dict) else str(given or "")
    name = results.get("model_name") or _argument(arguments, "pretrained") or folder.name.replace("__", "/")
    quantization = next((q for q in ("4bit", "8bit") if f"load_in_{q}=True" in arguments.replace(" ", "")), "")
    return ModelInfo(
        id=name_of(name),
        revision=name_of(_argument(arguments, "revision")),
        device=name_of(config.get("device") or "").split(":")[0],
        dtype=name_of(config.get("model_dtype") or _argument(arguments, "dtype")).removeprefix("torch."),
        quantization=quantization,
        run=folder.name,
    )


def _protocol(results: Mapping[str, Any], config: Mapping[str, Any], task: str) -> dict[str, str]:
    found = {"prompt": "lm-eval"}
    for name, values in (("num_fewshot", results.get("n-shot")), ("benchmark_version", results.get("versions"))):
        if task in mapping(values):
            found[name] = name_of(mapping(values)[task])
    if config.get("output_type") in OUTPUT_TYPES:
        found["output_type"] = OUTPUT_TYPES[config["output_type"]]
    return found


def _results(run: RawRun, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results files of a folder by date."""
    found = {}
    for file in sorted(folder.glob("results*.json")):
        date = file.stem.removeprefix("results").removeprefix("_")
        found[date] = read_json(file, run, file.name)
    if not found:
        run.notice(folder.name, "no results file next to the samples: model settings and number of shots are unknown")
    return found


def _without_samples(run: RawRun, folder: Path, tasks: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> None:
    """Name the tasks in the results that have no samples file; groups never have one."""
    missing: dict[str, None] = {}
    for log in results:
        groups = {name for name, parts in mapping(log.get("group_subtasks")).items() if parts}
        groups |= {*mapping(log.get("groups"))}
        missing |= dict.fromkeys(name for name in mapping(log.get("results")) if name not in {*tasks, *groups})
    if missing:
        shown = ", ".join(map(name_of, list(missing)[:5])) + (", …" if len(missing) > 5 else "")
        run.notice(
            folder.name, f"the results name tasks that have no samples file here ({shown}); they are not in this report"
        )


def _as_number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _argument(arguments: str, name: str) -> str:
    match = re.search(rf"(?:^|,){name}=([^,]*)", arguments)
    return match[1].strip() if match else ""


def split_task(task: str) -> tuple[str, str]:
    """Return benchmark and subject of a task name: ``mmlu_astronomy`` is astronomy of mmlu."""
    for group in sorted(GROUPS, key=len, reverse=True):
        if task.startswith(f"{group}_"):
            return group, task.removeprefix(f"{group}_")
    return task, "all"


def _metrics(run: RawRun, entry: RawEntry, file: Path, task: str, results: Mapping[str, Any]) -> None:
    """Read one samples file into the records of each metric, and compare them with the results file."""
    benchmark, subject = split_task(task)
    found: dict[str, list[Answer]] = {}
    filters: dict[str, int] = {}
    unscored = 0

    def made(line: Mapping[str, Any]) -> tuple[str, dict[str, Answer], Question | None]:
        return name_of(line.get("filter") or "none"), _scores(line, subject), _question(line)

    for name, records, question in each(read_lines(file, run, file.name), made, run, file.name):
        filters[name] = filters.get(name, 0) + 1
        unscored += not records
        for metric, record in records.items():
            found.setdefault(f"{metric},{name}", []).append(record)
            if question:
                run.questions[benchmark, subject, record.doc_id] = question
    if not filters and file.is_file() and not file.stat().st_size:
        run.notice(file.name, "the file is empty: this task is not in the report; run it again with --log_samples")
    if unscored:
        run.notice(file.name, f"{plural(unscored, 'line has', 'lines have')} no score of right or wrong; not counted")
    _keep(run, entry, file, task, results, found, several=len(filters) > 1)
    others = [name for name in entry.by_metric.get(benchmark, {}) if name != entry.metric[benchmark]]
    if len(filters) > 1 and others:
        run.notice(
            file.name,
            f"several filters parsed the same replies: the report uses {entry.metric[benchmark]} unless --where metric="
            f" selects another; also available: {', '.join(others)}",
        )


def _keep(
    run: RawRun,
    entry: RawEntry,
    file: Path,
    task: str,
    results: Mapping[str, Any],
    found: Mapping[str, list[Answer]],
    several: bool,
) -> None:
    """Keep a task's metrics in the task's order, each compared with the results file."""
    config = mapping(mapping(results.get("configs")).get(task))
    better = mapping(mapping(results.get("higher_is_better")).get(task))
    figures = mapping(mapping(results.get("results")).get(task))
    for key in sorted(found, key=lambda key: _order(key, task, config, list(found))):
        metric = key.rpartition(",")[0]
        if better.get(metric) is False:
            continue
        if outside(found[key]):
            run.notice(file.name, f"the values of {key} are not between 0 and 1; not in this report")
            continue
        _check(run, file, key, figures, mapping(results.get("n-samples")).get(task), found[key])
        short = key if several else metric
        keep(entry, split_task(task)[0], RENAMED.get((task, short), short), found[key])


def _order(key: str, task: str, config: Mapping[str, Any], found: Sequence[str]) -> tuple[int, int, int]:
    """Sort key: by filter, then by metric, both in the task's order; without its config, in order of appearance.

    The metric by which a known benchmark is usually quoted comes first.
    """
    metric, _, name = key.rpartition(",")
    filters = [mapping(item).get("name") for item in listed(config.get("filter_list"))]
    metrics = [mapping(item).get("metric") for item in listed(config.get("metric_list"))]
    place = filters.index(name) if name in filters else len(filters)
    known = metrics.index(metric) if metric in metrics else METRICS.index(metric) if metric in METRICS else 99
    return place, -1 if metric == _quoted_by(task) else known, found.index(key)


def _quoted_by(task: str) -> str:
    """The metric by which a task's benchmark is usually quoted; empty for an unknown benchmark."""
    name = split_task(task)[0]
    return benchmark_class(name).primary_metric if name in names() else ""


def _check(
    run: RawRun, file: Path, key: str, figures: Mapping[str, Any], samples: object, records: Sequence[Answer]
) -> None:
    asked = mapping(samples).get("effective", figures.get("sample_len"))
    check(run, file.name, key, figures.get(key, figures.get(key.removesuffix(",none"))), records, asked)


def _scores(line: Mapping[str, Any], subject: str) -> dict[str, Answer]:
    """Return a record for each metric of a line."""
    names = [str(name) for name in listed(line.get("metrics"))] or METRICS
    values = {name: value for name in names if (value := _number(line.get(name))) is not None}
    if not values or "doc_id" not in line:
        return {}
    scores = _loglikelihoods(line)
    doc = mapping(line.get("doc"))
    choices = _choices(doc)
    gold = _gold(line.get("target"), scores, choices)
    reply = None if scores else _first(line.get("filtered_resps"))
    raw = None if scores else _first(line.get("resps"))
    record = Answer(
        subject=subject,
        doc_id=name_of(line["doc_id"]),
        gold=gold,
        prediction=None if reply in (None, "", "[invalid]") else str(reply),
        correct=None,
        status="ok",
        loglikelihoods=scores,
        metrics={name_of(name): value for name, value in values.items()},
        text=None if raw is None else str(raw),
    )
    if not scores and record.prediction is None:
        record = record._replace(status="unparsed")
    return {name: choose(record, name, value, choices) for name, value in values.items()}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, bool) else number_or_none(value)


def _first(value: Any) -> Any:
    while isinstance(value, list):
        value = value[0] if value else None
    return value


def _loglikelihoods(line: Mapping[str, Any]) -> list[float] | None:
    """Log-likelihoods of the options: filtered_resps is a list of (log-likelihood, is greedy) pairs."""
    pairs = line.get("filtered_resps")
    if not isinstance(pairs, list) or len(pairs) < 2 or len(pairs) > len(LETTERS):
        return None
    try:
        return scores_of([float(pair[0]) for pair in pairs])
    except (TypeError, ValueError, LookupError, OverflowError):
        return None


def _gold(target: Any, scores: list[float] | None, choices: Sequence[str]) -> str:
    text = str(target).strip()
    if scores and text.isdecimal() and len(text) < 3 and int(text) < len(scores):
        return LETTERS[int(text)]
    if scores and len(choices) == len(scores) and text in [choice.strip() for choice in choices]:
        return LETTERS[[choice.strip() for choice in choices].index(text)]
    if "####" in text:  # GSM8K: the worked solution ends in the answer
        return text.rpartition("####")[2].strip().replace(",", "")
    return text


def _question(line: Mapping[str, Any]) -> Question | None:
    doc = mapping(line.get("doc"))
    text = next((doc[key] for key in TEXTS if isinstance(doc.get(key), str) and doc[key]), "")
    return Question(text, tuple(_choices(doc)), name_of(line.get("doc_hash", ""))) if text else None


def _choices(doc: Mapping[str, Any]) -> list[str]:
    nested = next((mapping(doc[key]).get("choices") for key in ("mc1_targets", "mc2_targets") if key in doc), None)
    choices = doc.get("choices") or doc.get("endings") or nested or ()
    if isinstance(choices, dict):
        choices = choices.get("text") or ()
    return list(map(str, listed(choices)))
