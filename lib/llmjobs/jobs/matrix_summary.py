"""What a matrix found: ``cell.json`` for each cell, and the grid for ``summary.json``; from the folders alone."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from llmjobs.jobs.matrix_cells import Cell, matrix_section
from llmjobs.jobs.matrix_job import DONE, FAILED, KILLED, MISSING, UNAVAILABLE, MatrixJob
from llmjobs.process_memory import needed_bytes
from llmjobs.report.measure.matrix import Flips, find_flips, read_cells
from llmjobs.report.study import RawRun
from llmjobs.runfolder.folder import CHECKPOINT, RECORDS, TIMINGS, RunFolder
from llmjobs.runfolder.journal import Record, read_records
from llmjobs.runner import cursor as cursors
from llmjobs.runner.run import Outcome
from llmjobs.statistics.intervals import wilson

CELL_FILE = "cell.json"
CONFIDENCE = "95% Wilson"


def summarize(job: MatrixJob, outcome: Outcome) -> dict[str, Any]:
    """Write every cell's ``cell.json``; return the ``matrix`` part of ``summary.json``."""
    cells = [_cell(job, cell, outcome) for cell in job.cells]
    for cell, found in zip(job.cells, cells, strict=True):
        job.folder.write_json(f"{cell.folder}/{CELL_FILE}", found)
    missing = [found["cell"] for found in cells if found["status"] == MISSING]
    return {
        "status": "partial" if missing else "complete",
        "cells": cells,
        "flips": [_flip(one) for one in find_flips([c for c in read_cells([raw_run(job.folder)]) if c.status == DONE])],
        "units_missing": missing,
        "units_failed": [{"unit": path, "error": line} for path, line in outcome.failed.items()],
    }


def raw_run(folder: RunFolder) -> RawRun:
    """The run as the report's reader of cells takes it."""
    return RawRun(folder.path, "llmjobs run")


def killed_units(job: MatrixJob) -> dict[str, str]:
    """Units whose result is that the kernel killed them, with the reason."""
    found = {}
    for cell in job.cells:
        for repetition in range(1, job.section.repetitions + 1):
            timing, _ = _repetition(job, cell, repetition)
            if timing and timing["status"] == KILLED:
                found[cell.path(repetition)] = str(timing["reason"])
    return found


def _repetition(job: MatrixJob, cell: Cell, number: int) -> tuple[Record | None, list[Record]]:
    """The figures and answers of one finished repetition."""
    if cell.name in job.unavailable:
        return None, []
    unit = job.unit(cell, number)
    place = job.folder.path / unit.path
    if not (place / CHECKPOINT).exists() or not cursors.load(job.folder.unit(unit.path), unit.declared)[0].done:
        return None, []
    runs = [line for line in read_records(place / TIMINGS, allow_torn=True) if line.get("phase") == "run"]
    return (runs[-1] if runs else None), read_records(place / RECORDS, allow_torn=True)


def _cell(job: MatrixJob, cell: Cell, outcome: Outcome) -> dict[str, Any]:
    section = matrix_section(job.study)
    found = [_repetition(job, cell, n) for n in range(1, section.repetitions + 1)]
    timings = [timing for timing, _ in found if timing and timing["status"] == DONE]
    answers = [records for timing, records in found if timing and timing["status"] == DONE]
    status, reason = _status(job, cell, outcome, [timing for timing, _ in found if timing], len(timings))
    head = {"row": cell.row, "cell": cell.name, "model": cell.model.name}
    asked = {
        "device": cell.model.device,
        "quantization": cell.model.quantization,
        "dtype": cell.model.dtype,
        "threads": cell.threads,
        "batch_size": cell.batch_size,
    }
    state = {"status": status, "reason": reason, "repetitions": len(timings)}
    if not timings:
        return head | asked | state
    model = timings[0]["model"]
    return {
        **head,
        **asked,
        **{key: model[key] for key in ("device", "quantization", "dtype", "architecture", "parameters", "revision")},
        "scoring_path": timings[0]["scoring_path"],
        **state,
        "accuracy": _accuracy(answers[0]),
        "repetitions_agree": all(_answers(one) == _answers(answers[0]) for one in answers),
        "measures": _measures(timings),
        "by_context": _by_context(timings),
        "reasons": _reasons(timings[0]),
        "remarks": list(dict.fromkeys(remark for timing in timings for remark in timing["remarks"])),
    }


def _status(
    job: MatrixJob, cell: Cell, outcome: Outcome, timings: Sequence[Record], done: int
) -> tuple[str, str | None]:
    wanted = job.section.repetitions
    killed = next((str(timing["reason"]) for timing in timings if timing["status"] == KILLED), None)
    paths = (cell.path(n) for n in range(1, wanted + 1))
    failed = next((outcome.failed[path] for path in paths if path in outcome.failed), None)
    if cell.name in job.unavailable:
        return UNAVAILABLE, job.unavailable[cell.name]
    if done == wanted:
        return DONE, None
    if done and (killed or failed):
        return DONE, f"{done} of {wanted} repetitions: {killed or failed}"
    if killed:
        return KILLED, killed
    if failed:
        return FAILED, failed
    return MISSING, f"{done} of {wanted} repetitions; the same command goes on"


def _answers(records: Sequence[Record]) -> list[tuple[Any, ...]]:
    return [(r["benchmark"], r["subject"], r["doc_id"], r["prediction"]) for r in records]


def _accuracy(records: Sequence[Record]) -> dict[str, Any]:
    """Micro accuracy; a question in error is counted apart."""
    scored = [record for record in records if record["status"] != "error"]
    right = sum(bool(record["correct"]) for record in scored)
    errors = len(records) - len(scored)
    if not scored:
        return {"n": 0, "correct": 0, "acc": None, "low": None, "high": None, "errors": errors}
    low, high = wilson(right, len(scored))
    figures = {"acc": right / len(scored), "low": low, "high": high}
    rounded = {key: round(value, 6) for key, value in figures.items()}
    return {"n": len(scored), "correct": right, **rounded, "errors": errors, "interval": CONFIDENCE}


def _measures(timings: Sequence[Record]) -> dict[str, Any]:
    return spreads([_figures(timing) for timing in timings])


def _figures(timing: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of one repetition, under the names of ``docs/measuring.md``."""
    questions, first = timing["questions"], timing["speed"][0]
    count, asked_s = questions["questions"], questions["real_s"]
    energy = timing["energy"]["joules"]
    energy_j = round(sum(energy.values()), 3) if energy else None
    plain = ("import_s", "load_s", "warmup_s", "real_s", "user_s", "system_s", "gpu_s", "peak_rss_bytes")
    return {
        **{name: timing[name] for name in plain},
        "needed_bytes": needed_bytes(timing.get("peak_anon_bytes"), timing.get("mapped_weight_bytes")),
        "peak_device_bytes": timing["peak_device_bytes"],
        "weight_bytes": timing["model"]["weight_bytes"],
        "cycles": timing["cpu"]["cycles"],
        "instructions": timing["cpu"]["instructions"],
        **{name: first[name] for name in ("ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s")},
        "questions_real_s": asked_s,
        "questions_cpu_s": round(questions["user_s"] + questions["system_s"], 6),
        "questions_gpu_s": questions["gpu_s"],
        "questions_per_s": round(count / asked_s, 4) if asked_s else None,
        "energy_j": energy_j,
        "joules_per_1000_questions": round(1000 * energy_j / count, 3) if energy_j is not None and count else None,
    }


def spreads(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Median, lowest, highest and number of each figure; None where no repetition has it."""
    found: dict[str, Any] = {}
    for name in rows[0]:
        values = [value for row in rows if (value := row.get(name)) is not None]
        median = statistics.median(values) if values else None
        found[name] = values and {"median": median, "low": min(values), "high": max(values), "n": len(values)} or None
    return found


def _by_context(timings: Sequence[Record]) -> list[dict[str, Any]]:
    names = ("ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s")
    rows = []
    for at, first in enumerate(timings[0]["speed"]):
        figures = spreads([{name: timing["speed"][at][name] for name in names} for timing in timings])
        rows.append({"context_tokens": first["context_tokens"], **figures, "reason": first["reason"]})
    return rows


def _reasons(timing: Mapping[str, Any]) -> dict[str, str]:
    """Why a figure is null, by its name."""
    cpu, device = timing["cpu"], timing["model"]["device"]
    found = {
        "gpu_s": timing["gpu_s_reason"] if timing["gpu_s"] is None else None,
        "cycles": cpu["reason"],
        "peak_device_bytes": None if timing["peak_device_bytes"] else f"no separate device memory on the {device}",
        "ttft_s": timing["speed"][0]["reason"],
        **{f"energy_j ({source})": why for source, why in timing["energy"]["reasons"].items()},
    }
    return {name: why for name, why in found.items() if why}


def _flip(flip: Flips) -> dict[str, Any]:
    result = flip.result
    return {
        "model": flip.cell.model,
        "cell": flip.cell.name,
        "against": flip.against.name,
        "n": result.n,
        "changed": flip.changed,
        "lost": result.only_second,
        "gained": result.only_first,
        "difference": round(result.difference, 6),
        "low": round(result.low, 6),
        "high": round(result.high, 6),
        "p": round(result.p, 6),
        "test": "McNemar, exact",
    }
