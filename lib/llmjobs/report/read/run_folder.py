"""Read a run folder of llmjobs, finished or still running."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmjobs.changed_prompts import MARKS, ChangedPrompts, count_changed
from llmjobs.records import CellResult, EvalRecord, as_record
from llmjobs.report.read.json_files import (
    each,
    listed,
    mapping,
    metrics_of,
    name_of,
    number_or_none,
    read_json,
    read_lines,
)
from llmjobs.report.read.scored import split_metrics
from llmjobs.report.study import STATUS, Answer, Cost, ModelInfo, Question, RawEntry, RawRun
from llmjobs.terminal_text import agree, plural
from llmjobs.work.integrity import check_run

PROTOCOL = ("prompt", "num_fewshot", "output_type", "benchmark_version", "data_hash")
"""Fields of a fingerprint that must agree before two models are compared."""
RENAMED = {"gsm8k": {"exact_match": "exact_match,strict-match", "flexible": "exact_match,flexible-extract"}}
"""Metrics by the names that lm-eval uses."""


def is_run_folder(path: Path) -> bool:
    """Whether ``path`` looks like a run folder."""
    return path.is_dir() and any((path / name).exists() for name in ("manifest.yaml", "summary.json", "eval"))


def read_run_folder(path: Path) -> RawRun:
    """Read every model's records below ``path/eval``, the questions, the times and the machine.

    Raises:
        RunFolderError: records of any job were changed since they were saved.

    """
    run = RawRun(path, "llmjobs run")
    state = check_run(path)
    if state.unverified:
        more = f" and {len(state.unverified) - 1} more" if len(state.unverified) > 1 else ""
        run.notice(
            f"{path.name}/{state.unverified[0]}{more}",
            "no checksum to compare the records with (made by an older llmjobs, or copied in part)",
        )
    run.environment = _optional(path / "environment.json", run, f"{path.name}/environment.json")
    run.summary = _optional(path / "summary.json", run, f"{path.name}/summary.json")
    _questions(path, run)
    place = path / "eval"
    for unit in sorted(unit for unit in place.rglob("*") if _is_unit(unit)) if place.is_dir() else []:
        _unit(path, unit, run)
    _cells(path, run)
    _metrics(run, run.entries)
    _costs(run)
    _completeness(path, run, state.unfinished)
    return run


def _metrics(run: RawRun, entries: Iterable[RawEntry]) -> None:
    choices: dict[str, dict[tuple[str, str], tuple[str, ...]]] = {}
    for (benchmark, subject, doc_id), question in run.questions.items():
        choices.setdefault(benchmark, {})[subject, doc_id] = question.choices
    for entry in entries:
        for benchmark in entry.records:
            split_metrics(entry, benchmark, choices.get(benchmark, {}))
            names = RENAMED.get(benchmark, {})
            tables = entry.by_metric[benchmark]
            entry.by_metric[benchmark] = {names.get(name, name): records for name, records in tables.items()}
            entry.metric[benchmark] = names.get(entry.metric[benchmark], entry.metric[benchmark])


def _is_unit(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).exists() for name in ("records.jsonl", "unit.json"))


def _optional(path: Path, run: RawRun, where: str) -> Mapping[str, Any]:
    if path.exists():
        return read_json(path, run, where)
    run.notice(where, "the file is missing: the run is not finished, or the folder was copied in part")
    run.partial = True
    return {}


def _questions(path: Path, run: RawRun) -> None:
    for file in sorted((path / "docs").glob("*.jsonl")):
        benchmark, _, subject = name_of(file.stem).partition(".")
        asked = run.asked.setdefault(benchmark, set())
        for line in read_lines(file, run, f"{path.name}/docs/{file.name}"):
            doc_id = name_of(line.get("doc_id"))
            choices = tuple(map(str, listed(line.get("choices"))))
            question = Question(str(line.get("question", "")), choices, name_of(line.get("hash", "")))
            run.questions[benchmark, subject, doc_id] = question
            asked.add((subject, doc_id))


def _unit(path: Path, unit: Path, run: RawRun) -> None:
    benchmark, _, subject = name_of(unit.name).partition(".")
    where = f"{path.name}/{unit.relative_to(path).as_posix()}"
    entry = _entry(path, unit.parent, run)
    file = read_json(unit / "unit.json", run, f"{where}/unit.json")
    fingerprint = mapping(file.get("fingerprint"))
    entry.fingerprints[f"{benchmark}.{subject}"] = fingerprint
    entry.protocol_of(benchmark, subject, _protocol(fingerprint, subject))
    seen: dict[str, int] = {}
    kept = entry.records.setdefault(benchmark, [])
    marks: list[dict[str, Any]] = []
    lines = read_lines(unit / "records.jsonl", run, f"{where}/records.jsonl")
    for record in each(lines, lambda line: as_record(line, EvalRecord), run, f"{where}/records.jsonl"):
        marks.append({name: mark for name, mark in record.items() if name in MARKS})
        answer = answer_of(record)
        seen[answer.doc_id] = seen.get(answer.doc_id, 0) + 1
        if seen[answer.doc_id] == 1:
            kept.append(answer)
    shots = fingerprint.get("num_fewshot")
    changed = count_changed(marks, shots if isinstance(shots, int) else 0)
    entry.changed[benchmark] = entry.changed.get(benchmark, ChangedPrompts()) + changed
    twice = sum(count - 1 for count in seen.values())
    if twice:
        run.notice(
            f"{where}/records.jsonl",
            f"{plural(twice, 'question is', 'questions are')} recorded twice; the first record is used",
        )
    error = unit / "error.json"
    if error.exists():
        run.notice(where, f"the unit failed: {read_json(error, run, where).get('error', 'no reason recorded')}")


def _protocol(fingerprint: Mapping[str, Any], subject: str) -> dict[str, str]:
    asked = {name: name_of(fingerprint[name]) for name in PROTOCOL if name in fingerprint}
    return asked | ({f"data_hash ({subject})": asked.pop("data_hash")} if "data_hash" in asked else {})


def _cells(path: Path, run: RawRun) -> None:
    for file in sorted((path / "matrix").glob("*/cell.json")):
        folder = file.parent
        where = f"{path.name}/matrix/{folder.name}"
        if raw := read_json(file, run, f"{where}/cell.json"):
            records = folder / "records.jsonl"
            lines = read_lines(records, run, where) if records.exists() else ()
            run.cells.append(CellResult.from_json(raw, folder.name, lines))


def cell_entries(run: RawRun) -> list[tuple[CellResult, RawEntry]]:
    """Return every cell of a run's matrix with its answers as an entry; a cell that did not run has no records.

    The report shows cells in their own tables. For a decision, a cell is a candidate like any other.
    """
    found = []
    for cell in run.cells:
        where = f"{run.path.name}/matrix/{cell.cell}"
        folder = run.path / "matrix" / Path(cell.cell).name
        file = read_json(folder / "unit.json", run, f"{where}/unit.json") if cell.answers else {}
        fingerprint, effective = mapping(file.get("fingerprint")), mapping(file.get("effective"))
        info = ModelInfo(
            id=name_of(fingerprint.get("model") or cell.model),
            revision=name_of(cell.revision or ""),
            device=cell.device,
            dtype=cell.dtype.removeprefix("torch."),
            quantization=cell.quantization,
            run=run.path.name,
            details={"name": cell.model, "engine": cell.engine}
            | {name: effective[name] for name in ("gpu_layers", "kv_cache") if name in effective},
        )
        entry = RawEntry(info, where, machine=mapping(run.environment.get("machine")))
        if cell.answers:
            lines = read_lines(folder / "records.jsonl", run, where)
            for record in each(lines, lambda line: as_record(line, EvalRecord), run, where):
                entry.records.setdefault(name_of(record["benchmark"]), []).append(answer_of(record))
            for name, asked in mapping(fingerprint.get("questions")).items():
                benchmark, _, subject = name_of(name).partition(".")
                entry.protocol_of(benchmark, subject, _protocol(mapping(asked), subject))
        found.append((cell, entry))
    _metrics(run, [entry for _, entry in found])
    return found


def answer_of(record: EvalRecord) -> Answer:
    """Return one of our records as an answer like those of other tools; an unknown status counts as an error."""
    return Answer(
        subject=name_of(record["subject"]),
        doc_id=str(record["doc_id"]),
        gold=record["gold"],
        prediction=record["prediction"],
        correct=record["correct"],
        status=record["status"] if record["status"] in STATUS else "error",
        loglikelihoods=record["loglikelihoods"] or None,
        metrics=metrics_of(record["metrics"]),
        text=record.get("text"),
    )


def _entry(path: Path, folder: Path, run: RawRun) -> RawEntry:
    name = folder.relative_to(path / "eval").as_posix()
    for entry in run.entries:
        if entry.source == f"{path.name}/eval/{name}":
            return entry
    details: Mapping[str, Any] = read_json(folder / "model.json", run, f"{path.name}/eval/{name}/model.json")
    model, revision = details.get("id", name) if "/" not in name else name, details.get("revision") or ""
    if adapter := details.get("adapter"):  # a model with an adapter is another model
        model, revision = f"{model} + {adapter}", f"{revision}+{details.get('adapter_revision')}"
    info = ModelInfo(
        id=name_of(model),
        revision=name_of(revision),
        device=name_of(details.get("device") or ""),
        dtype=name_of(details.get("dtype") or "").removeprefix("torch."),
        quantization=name_of(details.get("quantization") or ""),
        run=path.name,
        details={"name": name, "engine": "transformers"} | dict(details),  # older runs had no other engine
    )
    entry = RawEntry(info, f"{path.name}/eval/{name}", machine=mapping(run.environment.get("machine")))
    run.entries.append(entry)
    return entry


def _costs(run: RawRun) -> None:
    """Read times from the summary, which covers all attempts; without one, from the timing lines."""
    models = listed(mapping(run.summary.get("eval")).get("models"))
    summaries = {str(model.get("model")): model for model in models if isinstance(model, dict)}
    for entry in run.entries:
        name = str(entry.info.details["name"])
        entry.cost = _cost(summaries[name]) if name in summaries else _summed(run, name)
        _agree(run, entry, summaries.get(name))


SECONDS = ("real_s", "user_s", "system_s", "gpu_s", "load_s")
SIZES = ("peak_rss_bytes", "needed_bytes", "peak_device_bytes")


def _cost(line: Mapping[str, Any]) -> Cost:
    seconds = {key: number_or_none(line.get(key)) for key in SECONDS}
    sizes = {name: int(number_or_none(line.get(name)) or 0) or None for name in SIZES}
    return Cost(
        **seconds,
        gpu_s_reason=None if line.get("gpu_s_reason") is None else name_of(line.get("gpu_s_reason")),
        peak_rss_bytes=sizes["peak_rss_bytes"],
        needed_bytes=sizes["needed_bytes"],
        peak_device_bytes=sizes["peak_device_bytes"],
        energy_j=number_or_none(line.get("energy_j")),
        questions=int(number_or_none(line.get("questions")) or 0),
        attempts=int(number_or_none(line.get("attempts")) or 1),
        questions_per_s=number_or_none(line.get("questions_per_s")),
    )


def _summed(run: RawRun, name: str) -> Cost:
    lines: list[dict[str, Any]] = []
    for file in sorted((run.path / "eval" / name).glob("*/timings.jsonl")):
        lines += read_lines(file, run, f"{run.path.name}/{file.relative_to(run.path).as_posix()}")
    load = sum(number_or_none(line.get("load_s")) or 0.0 for line in lines)
    load += _sum(line for line in lines if line.get("phase") == "load") or 0.0
    questions = sum(int(number_or_none(line.get("items") or line.get("docs")) or 0) for line in lines)
    scoring_s = _sum(line for line in lines if line.get("phase") == "run")
    gpu = [value for line in lines if (value := number_or_none(line.get("gpu_s"))) is not None]
    anon, mapped = _peak(lines, "peak_anon_bytes"), _peak(lines, "mapped_weight_bytes")
    return Cost(
        real_s=_sum(lines),
        needed_bytes=anon + (mapped or 0) if anon else None,
        user_s=_sum(lines, "user_s"),
        system_s=_sum(lines, "system_s"),
        gpu_s=sum(gpu) if gpu else None,
        gpu_s_reason=None if gpu else "no device events were recorded",
        load_s=load or None,
        peak_rss_bytes=_peak(lines, "peak_rss_bytes"),
        peak_device_bytes=_peak(lines, "peak_device_bytes"),
        questions=questions,
        questions_per_s=questions / scoring_s if questions and scoring_s else None,
        attempts=max((int(number_or_none(line.get("attempt")) or 1) for line in lines), default=1),
    )


def _sum(lines: Iterable[Mapping[str, Any]], key: str = "real_s") -> float | None:
    found = [value for line in lines if (value := number_or_none(line.get(key))) is not None]
    return sum(found) if found else None


def _peak(lines: Iterable[Mapping[str, Any]], key: str) -> int | None:
    return int(max((number_or_none(line.get(key)) or 0 for line in lines), default=0)) or None


def _agree(run: RawRun, entry: RawEntry, summary: Mapping[str, Any] | None) -> None:
    """Compare the summary's figures for a model with its records."""
    for line in filter(mapping, listed((summary or {}).get("benchmarks"))):
        records = entry.records.get(str(line.get("benchmark")), [])
        scored = [record for record in records if record.correct is not None]
        right = sum(bool(record.correct) for record in scored)
        acc = number_or_none(line.get("acc"))
        n = line.get("n")
        differs = n != len(scored) or (acc is not None and scored and abs(acc - right / len(scored)) > 1e-4)
        if differs:
            found = f"{right / len(scored):.4f} of {len(scored)}" if scored else "no scored question"
            run.notice(
                f"{run.path.name}/summary.json",
                f"disagrees with the records of {entry.info.details['name']} on {line.get('benchmark')}:"
                f" the summary has {acc} of {n}, the records {found}; this report uses the records",
            )


def _completeness(path: Path, run: RawRun, unfinished: Iterable[str]) -> None:
    """Mark a run with incomplete results of any job, by its units and its summary.

    Questions that a rule made unnecessary are not missing.
    """
    stop = mapping(mapping(run.summary.get("eval")).get("stop"))
    run.races = [mapping(race) for race in listed(stop.get("races"))]
    ended = {str(race.get("name")) for race in run.races if race.get("decided")}
    open_units = dict.fromkeys(unit for unit in unfinished if not (ended and unit.startswith("eval/")))
    for part in filter(None, map(mapping, run.summary.values())):
        run.partial |= part.get("status") == "partial"
        open_units |= dict.fromkeys(name_of(unit) for unit in listed(part.get("units_missing")))
        for failed in map(mapping, listed(part.get("units_failed"))):
            run.notice(f"{path.name}/{name_of(failed.get('unit'))}", f"failed: {failed.get('error')}")
            run.partial = True
    for unit in open_units:
        run.notice(f"{path.name}/{unit}", "has not been run yet, or is not finished")
        run.partial = True
    for entry in run.entries:
        for benchmark, asked in run.asked.items():
            missing = len(asked) - len(entry.records.get(benchmark, ()))
            if missing > 0 and not ended & {benchmark, "study"}:
                run.partial = True
                run.notice(
                    entry.source,
                    f"{missing} of {len(asked)} {benchmark} questions {agree(missing, 'has', 'have')} no record yet",
                )
