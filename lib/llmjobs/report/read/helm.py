"""Read HELM: a folder of runs, or one run, as written by ``helm-run`` or ``helm-summarize``.

A run is one subject of one model; a model's runs are combined. ``display_predictions.json`` and ``instances.json`` come
from ``helm-summarize``, ``per_instance_stats.json`` and ``scenario_state.json`` from ``helm-run``. If ``stats.json``
has HELM's own figure, it is compared.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmjobs.errors import DataError
from llmjobs.report.read.json_files import each, listed, mapping, name_of, number_or_none, read_json, read_text
from llmjobs.report.read.scored import check, finish, keep, outside, reduced
from llmjobs.report.study import Answer, ModelInfo, Question, RawEntry, RawRun
from llmjobs.terminal_text import agree, plural

SPEC, INSTANCES, PREDICTIONS = "run_spec.json", "instances.json", "display_predictions.json"
STATE, PER_INSTANCE, STATS = "scenario_state.json", "per_instance_stats.json", "stats.json"
SCORES = (
    "exact_match",
    "quasi_exact_match",
    "prefix_exact_match",
    "quasi_prefix_exact_match",
    "final_number_exact_match",
    "exact_match_indicator",
    "math_equiv",
    "math_equiv_chain_of_thought",
    "chain_of_thought_correctness",
    "f1_score",
)
"""Metrics that are shares between 0 and 1; the first one that a run has is the main one."""
DEEP = 4
"""How many levels below the given folder runs are searched: ``benchmark_output/runs/SUITE/RUN``."""


def is_helm_folder(path: Path) -> bool:
    """Whether a folder has the files of one HELM run."""
    names = {name for name in (SPEC, PREDICTIONS, PER_INSTANCE) if (path / name).is_file()} if path.is_dir() else set()
    return SPEC in names and len(names) > 1


def helm_folders(path: Path) -> list[Path]:
    """Return the folders of HELM runs in ``path``, including itself."""
    if is_helm_folder(path):
        return [path]
    patterns = ("/".join(["*"] * depth + [SPEC]) for depth in range(1, DEEP + 1))
    return sorted({file.parent for pattern in patterns for file in path.glob(pattern) if is_helm_folder(file.parent)})


def read_helm(path: Path) -> RawRun:
    """Read all HELM runs in a folder; perturbed copies of questions are left out and counted."""
    run = RawRun(path, "HELM run", in_parts=True)
    entries: dict[tuple[str, str], RawEntry] = {}
    for folder in helm_folders(path):
        _read_run(run, folder, entries)
    run.entries = list(entries.values())
    finish(run)
    return run


def _read_run(run: RawRun, folder: Path, entries: dict[tuple[str, str], RawEntry]) -> None:
    spec = read_json(folder / SPEC, run, f"{folder.name}/{SPEC}")
    adapter = mapping(spec.get("adapter_spec"))
    name = name_of(spec.get("name") or folder.name)
    benchmark = re.split(r"[:,]", name)[0]
    subject = _subject(name)
    method = name_of(adapter.get("method", ""))
    model = name_of(adapter.get("model") or "unknown")
    protocol = {
        "prompt": f"HELM {method}".strip(),
        "num_fewshot": name_of(adapter.get("max_train_instances", "")),
        "output_type": "loglikelihood" if "separate" in method else "generate_until",
    }
    entry = entries.setdefault((model, method), RawEntry(ModelInfo(model, run=run.path.name), folder.name))
    read = {r.subject for found in entry.by_metric.get(benchmark, {}).values() for r in found}
    if subject in read:
        run.notice(folder.name, f"a second run of {benchmark}, {subject} by {model}; only the first is read")
        return
    entry.source = run.path.name if entry.by_metric else folder.name
    entry.protocol_of(benchmark, subject, protocol)
    instances = _instances(run, folder)
    _note_missing_texts(run, folder, instances)
    answers, left_out = _answers(run, folder, benchmark)
    if left_out:
        run.notice(
            folder.name,
            f"{plural(left_out, 'perturbed copy', 'perturbed copies')} of questions"
            f" {agree(left_out, 'is', 'are')} left out",
        )
    _keep(run, entry, folder, benchmark, subject, method, instances, answers)


def _subject(name: str) -> str:
    """Return the subject in a run's name, or whatever distinguishes it from other runs of the benchmark."""
    if match := re.search(r"(?:subject|subset|task|dataset)=([^,]+)", name):
        return match[1]
    rest = [part for part in re.split(r"[:,]", name)[1:] if not part.startswith(("model=", "method=", "model_"))]
    return ",".join(rest) or "all"


def _note_missing_texts(run: RawRun, folder: Path, instances: Mapping[str, Any]) -> None:
    if not instances:
        run.notice(
            folder.name, "contains only ids, no question texts: questions cannot be shown or matched with other logs"
        )


def _instances(run: RawRun, folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return the questions by id, from either of the two files that contain them."""
    if (folder / INSTANCES).is_file():
        items = _list(folder / INSTANCES, run)
    else:
        items = [mapping(state.get("instance")) for state in _states(run, folder)]
    return {str(item.get("id")): item for item in items if not item.get("perturbation")}


def _states(run: RawRun, folder: Path) -> list[Mapping[str, Any]]:
    if not (folder / STATE).is_file():
        return []
    found = listed(read_json(folder / STATE, run, f"{folder.name}/{STATE}").get("request_states"))
    return [state for state in found if isinstance(state, dict)]


Line = tuple[str, str | None, str | None, dict[str, float]]
"""Instance id, reply, the option's text that HELM read from it, scores by metric."""


def _answers(run: RawRun, folder: Path, benchmark: str) -> tuple[list[Line], int]:
    """Return the answers of one run and the number of perturbed copies, from the summary or from the raw files."""
    if (folder / PREDICTIONS).is_file():
        lines = _list(folder / PREDICTIONS, run)
        kept = [line for line in lines if not line.get("perturbation")]
        where = f"{folder.name}/{PREDICTIONS}"
        return [found for found in each(kept, _displayed, run, where) if found], len(lines) - len(kept)
    replies = dict(each(_asked_once(_states(run, folder)), _reply, run, f"{folder.name}/{STATE}"))
    lines = _list(folder / PER_INSTANCE, run)
    kept = [line for line in lines if not line.get("perturbation")]
    found = []
    for key, trial, scores in each(kept, _stats, run, f"{folder.name}/{PER_INSTANCE}"):
        reply, mapped = replies.get((key, trial), (None, None))
        if scores:
            found.append((key, reply, mapped, scores))
    return found, len(lines) - len(kept)


def _displayed(line: Mapping[str, Any]) -> Line:
    stats = mapping(line.get("stats"))
    scores = {name: value for name in SCORES if (value := number_or_none(stats.get(name))) is not None}
    mapped = line.get("mapped_output")
    text = str(line.get("predicted_text", ""))
    return name_of(line["instance_id"]), text, None if mapped is None else str(mapped), scores


def _asked_once(states: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the requests that ask a whole question, without those for single options and perturbed copies."""
    for state in states:
        instance = mapping(state.get("instance"))
        if state.get("reference_index") is None and not instance.get("perturbation"):
            yield state


def _reply(state: Mapping[str, Any]) -> tuple[tuple[str, str], tuple[str | None, str | None]]:
    key = name_of(mapping(state.get("instance"))["id"]), str(state.get("train_trial_index", 0))
    completions = listed(mapping(state.get("result")).get("completions"))
    text = str(mapping(completions[0]).get("text", "")) if completions else None
    outputs = mapping(state.get("output_mapping"))
    mapped = outputs.get((text or "").strip()) if outputs else None
    return key, (text, None if mapped is None else str(mapped))


def _stats(line: Mapping[str, Any]) -> tuple[str, str, dict[str, float]]:
    scores: dict[str, float] = {}
    for stat in map(mapping, listed(line.get("stats"))):
        name = mapping(stat.get("name"))
        value = number_or_none(stat.get("mean"))
        if value is None and number_or_none(stat.get("count")):
            value = float(stat["sum"]) / float(stat["count"])
        if name.get("name") in SCORES and not name.get("perturbation") and value is not None:
            scores[str(name["name"])] = value
    return name_of(line["instance_id"]), str(line.get("train_trial_index", 0)), scores


def _keep(
    run: RawRun,
    entry: RawEntry,
    folder: Path,
    benchmark: str,
    subject: str,
    method: str,
    instances: Mapping[str, Mapping[str, Any]],
    answers: Sequence[Line],
) -> None:
    """Make records of a run's answers by each metric; several trials of a question count as their mean."""
    trials: dict[str, list[Line]] = {}
    for line in answers:
        trials.setdefault(line[0], []).append(line)
    several = max(map(len, trials.values()), default=1)
    if several > 1:
        run.notice(folder.name, f"{several} trials per question with different examples; their mean is used")
    stats = _own_figures(run, folder)
    for name in SCORES:
        records = []
        for key, lines in trials.items():
            record, question = _record(lines, instances.get(key) or {}, subject, key)
            if question.text or question.choices:
                run.questions[benchmark, subject, key] = question
            records += _scored(record, lines, name)
        if not any(record.score is not None for record in records) or outside(records):
            continue
        for split, value in ((split, value) for (metric, split), value in stats.items() if metric == name):
            ours = [r for r in records if not split or _split(instances, r.doc_id) in (split, "")]
            check(run, f"{folder.name}/{STATS}", f"{name} ({split})" if split else name, value, ours)
        # with options to choose among, exact_match says whether the right one was chosen, which others call acc
        chosen = name == "exact_match" and method.startswith("multiple_choice")
        keep(entry, benchmark, "acc" if chosen else name, records)


def _scored(record: Answer, lines: Sequence[Line], metric: str) -> list[Answer]:
    """Return the record with its score: an error if HELM has no score at all, nothing if only this one is missing."""
    values = [scores[metric] for _, _, _, scores in lines if metric in scores]
    if values:
        return [record._replace(score=reduced(values, "mean"))]
    if not any(scores for _, _, _, scores in lines):
        return [record._replace(status="error", prediction=None)]
    return []


def _split(instances: Mapping[str, Mapping[str, Any]], key: str) -> str:
    return str((instances.get(key) or {}).get("split") or "")


def _own_figures(run: RawRun, folder: Path) -> dict[tuple[str, str], float]:
    """Return the means in ``stats.json`` by metric and split, without perturbed ones."""
    found: dict[tuple[str, str], float] = {}
    if not (folder / STATS).is_file():
        return found
    for stat in _list(folder / STATS, run):
        name, mean = mapping(stat.get("name")), number_or_none(stat.get("mean"))
        if name.get("name") in SCORES and not name.get("perturbation") and mean is not None:
            found[str(name["name"]), str(name.get("split") or "")] = mean
    return found


def _list(path: Path, run: RawRun) -> list[Mapping[str, Any]]:
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError, DataError) as error:
        run.notice(f"{path.parent.name}/{path.name}", f"cannot be read ({error})")
        return []
    return [item for item in listed(value) if isinstance(item, dict)]


def _record(lines: Sequence[Line], instance: Mapping[str, Any], subject: str, key: str) -> tuple[Answer, Question]:
    references = listed(instance.get("references"))
    texts = [str(mapping(mapping(reference).get("output")).get("text", "")) for reference in references]
    right = [i for i, reference in enumerate(references) if "correct" in (mapping(reference).get("tags") or ())]
    letters = bool(right) and len(texts) > 1
    gold = chr(ord("A") + right[0]) if letters else (texts[right[0]] if right else "")
    read = {_answer(raw, mapped, texts, letters) for _, raw, mapped, _ in lines}
    prediction = read.pop() if len(read) == 1 else None
    known = prediction is not None or len(lines) > 1 or lines[0][1] is None
    record = Answer(
        subject=subject,
        doc_id=key,
        gold=gold,
        prediction=prediction,
        correct=None,
        status="ok" if known else "unparsed",
        text=lines[0][1],
    )
    return record, Question(str(mapping(instance.get("input")).get("text", "")), tuple(texts))


def _answer(raw: str | None, mapped: str | None, texts: Sequence[str], letters: bool) -> str | None:
    if letters and mapped is not None and mapped in texts:
        return chr(ord("A") + texts.index(mapped))
    if letters:
        letter = re.match(r"^\s*\(?([A-Z])(?:[).:,]|\s*$)", raw or "")
        return letter[1] if letter and ord(letter[1]) - ord("A") < len(texts) else None
    return (raw or "").strip() or None
