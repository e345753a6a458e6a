"""What a timing matrix found: a result for each cell, and which answers a setting changes."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmjobs.matrix.cells import Cell
from llmjobs.memory import needed_bytes
from llmjobs.records import (
    DONE,
    FAILED,
    KILLED,
    MISSING,
    UNAVAILABLE,
    CellRecord,
    CellResult,
    Spread,
    answers_of,
)
from llmjobs.statistics.paired import PairedDifference, paired_difference
from llmjobs.work.journal import Record


def summarize(cells: Sequence[CellResult], failed: Mapping[str, str]) -> dict[str, Any]:
    """Return the ``matrix`` part of ``summary.json``; ``failed`` maps units to the line with the reason."""
    missing = [cell.cell for cell in cells if cell.status == MISSING]
    return {
        "status": "partial" if missing else "complete",
        "cells": [cell.to_json() for cell in cells],
        "flips": [flip.to_json() for flip in find_flips(cells)],
        "units_missing": missing,
        "units_failed": [{"unit": path, "error": line} for path, line in failed.items()],
    }


@dataclass(frozen=True)
class Repetition:
    """One finished repetition of a cell, as recorded."""

    timing: Record
    records: Sequence[CellRecord]

    @property
    def is_done(self) -> bool:
        """Whether it has measurements: one that was killed for memory has a result without any."""
        return bool(self.timing["status"] == DONE)

    @property
    def predictions(self) -> list[tuple[Any, ...]]:
        """Every answer with its question, in order."""
        return [(r["benchmark"], r["subject"], r["doc_id"], r["prediction"]) for r in self.records]


def cell_result(
    cell: Cell, repetitions: Sequence[Repetition], wanted: int, *, unavailable: str | None, failed: str | None
) -> CellResult:
    """Combine the finished repetitions of a cell.

    ``wanted`` is the number in the manifest; ``unavailable`` and ``failed`` say why there are fewer.
    """
    done = [repetition for repetition in repetitions if repetition.is_done]
    killed = next((str(one.timing["reason"]) for one in repetitions if not one.is_done), None)
    status, reason = _status(len(done), wanted, unavailable, killed, failed)
    found: dict[str, Any] = {
        "device": cell.model.device,
        "quantization": cell.model.quantization,
        "dtype": cell.model.dtype,
    }
    if done:
        first, timings = done[0], [one.timing for one in done]
        model = first.timing["model"]
        loaded = ("device", "quantization", "dtype", "architecture", "parameters", "revision")
        found = {
            **{key: model[key] for key in loaded},
            "scoring_path": first.timing["scoring_path"],
            "errors": sum(record["status"] == "error" for record in first.records),
            "repetitions_agree": all(one.predictions == first.predictions for one in done),
            "measures": _spreads([_figures(timing) for timing in timings]),
            "by_context": _by_context(timings),
            "reasons": _reasons(first.timing),
            "remarks": list(dict.fromkeys(remark for timing in timings for remark in timing["remarks"])),
            "answers": answers_of(first.records),
            "engine": str(model.get("engine") or "transformers"),
        }
    return CellResult(
        row=cell.row,
        cell=cell.name,
        model=cell.model.name,
        threads=cell.threads,
        batch_size=cell.batch_size,
        status=status,
        reason=reason,
        repetitions=len(done),
        precision=cell.precision.name if cell.precision else None,
        is_reference=cell.is_reference,
        **found,
    )


def _status(
    done: int, wanted: int, unavailable: str | None, killed: str | None, failed: str | None
) -> tuple[str, str | None]:
    if unavailable:
        return UNAVAILABLE, unavailable
    if done == wanted:
        return DONE, None
    if done and (killed or failed):
        return DONE, f"{done} of {wanted} repetitions: {killed or failed}"
    if killed:
        return KILLED, killed
    if failed:
        return FAILED, failed
    return MISSING, f"{done} of {wanted} repetitions are finished; run the same command to resume"


def _figures(timing: Mapping[str, Any]) -> dict[str, float | None]:
    """The measurements of one repetition, by the names in ``docs/measuring.md``."""
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
        "file_bytes": timing.get("file_bytes"),
        "cycles": timing["cpu"]["cycles"],
        "instructions": timing["cpu"]["instructions"],
        **{name: first[name] for name in SPEEDS},
        "questions_real_s": asked_s,
        "questions_cpu_s": round(questions["user_s"] + questions["system_s"], 6),
        "questions_gpu_s": questions["gpu_s"],
        "questions_per_s": round(count / asked_s, 4) if asked_s else None,
        "energy_j": energy_j,
        "joules_per_1000_questions": round(1000 * energy_j / count, 3) if energy_j is not None and count else None,
    }


SPEEDS = ("ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s")


def _spreads(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Spread | None]:
    """Each measurement over the repetitions; None if no repetition has it."""
    found: dict[str, Spread | None] = {}
    for name in rows[0]:
        values = [value for row in rows if (value := row.get(name)) is not None]
        found[name] = Spread(statistics.median(values), min(values), max(values), len(values)) if values else None
    return found


def _by_context(timings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for at, first in enumerate(timings[0]["speed"]):
        found = _spreads([{name: timing["speed"][at][name] for name in SPEEDS} for timing in timings])
        figures = {name: spread and vars(spread) for name, spread in found.items()}
        rows.append({"context_tokens": first["context_tokens"], **figures, "reason": first["reason"]})
    return rows


def _reasons(timing: Mapping[str, Any]) -> dict[str, str]:
    """Why a measurement is null, by its name."""
    cpu, device = timing["cpu"], timing["model"]["device"]
    found = {
        "gpu_s": timing["gpu_s_reason"] if timing["gpu_s"] is None else None,
        "cycles": cpu["reason"],
        "peak_device_bytes": None if timing["peak_device_bytes"] else f"no separate device memory on the {device}",
        "ttft_s": timing["speed"][0]["reason"],
        **{f"energy_j ({source})": why for source, why in timing["energy"]["reasons"].items()},
    }
    return {name: why for name, why in found.items() if why}


@dataclass(frozen=True)
class Flips:
    """What a cell's settings change on the same questions, compared with the reference cell.

    ``changed`` counts different answers, right or wrong; the difference is this cell's accuracy minus the reference's.
    """

    cell: CellResult
    against: CellResult
    changed: int
    result: PairedDifference

    def to_json(self) -> dict[str, Any]:
        """The changes in the format of ``summary.json``."""
        result = self.result
        return {
            "model": self.cell.model,
            "cell": self.cell.row,
            "against": self.against.row,
            "n": result.n,
            "changed": self.changed,
            "lost": result.only_second,
            "gained": result.only_first,
            "difference": round(result.difference, 6),
            "low": round(result.low, 6),
            "high": round(result.high, 6),
            "p": round(result.p, 6),
            "test": "McNemar, exact",
        }


def find_flips(cells: Sequence[CellResult]) -> list[Flips]:
    """Compare each finished cell with the reference of its model, on its own device if possible.

    The reference is the precision that the manifest names, or the unquantized cell. Cells are taken by name, so that
    the summary of a run and a report on it compare the same ones.
    """
    done = sorted((cell for cell in cells if cell.status == DONE and cell.answers), key=lambda cell: cell.cell)
    found = []
    for cell in done:
        against = reference_cell(cell, done)
        keys = sorted(set(cell.answers) & set(against.answers)) if against else []
        if against and keys:
            mine, theirs = [cell.answers[key] for key in keys], [against.answers[key] for key in keys]
            changed = sum(a[0] != b[0] for a, b in zip(mine, theirs, strict=True))
            result = paired_difference([right for _, right in mine], [right for _, right in theirs])
            found.append(Flips(cell, against, changed, result))
    return found


def reference_cell(cell: CellResult, done: Sequence[CellResult]) -> CellResult | None:
    """The cell that ``cell`` is compared with among ``done`` (in order of their names); None for a reference itself.

    If several cells are references (one on each device), the first one is compared with nothing, the others with it.
    """
    if cell.precision:
        fits = [one for one in done if one.model == cell.model and one.is_reference]
        itself = cell.is_reference
    else:
        fits = [one for one in done if one.model == cell.model and not one.precision and one.quantization == "none"]
        itself = cell.quantization == "none"

    def apart(one: CellResult) -> tuple[bool, bool, str]:
        other = cell.precision is not None and _settings(one) != _settings(cell)
        return one.device != cell.device, other, one.cell

    others = sorted((one for one in fits if one is not cell), key=apart)
    if not others or (itself and cell.cell < others[0].cell):
        return None
    return others[0]


def _settings(cell: CellResult) -> tuple[int | str, int]:
    return cell.threads, cell.batch_size


def cell_names(cells: Sequence[CellResult]) -> list[str]:
    """Return the displayed name of each cell: its row, with the model if there are several."""
    several = len({cell.model for cell in cells}) > 1
    return [f"{cell.model} {cell.row}" if several else cell.row for cell in cells]
