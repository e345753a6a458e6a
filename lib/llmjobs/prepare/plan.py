"""``plan``: estimate tokens, time, memory and disk per model without running anything."""

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from llmjobs.errors import DataError
from llmjobs.eval.stop import forecast
from llmjobs.eval.tasks import Task, make_tasks
from llmjobs.exit_codes import EXIT_ERROR, EXIT_OK
from llmjobs.fetch import ROOM_TO_SPARE_BYTES
from llmjobs.hub.files import size_text
from llmjobs.hub.repositories import repo_folder
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.manifest.matrix import spec_at
from llmjobs.matrix.cells import make_cells, matrix_benchmarks, questions_study
from llmjobs.prepare.doctor_network import from_the_cache, hub_silence
from llmjobs.prepare.plan_model import Devices, ModelPlan, plan_model
from llmjobs.prepare.plan_tokens import CallPlan, call_lines, plan_calls
from llmjobs.terminal_text import DASH, agree, gib, plural, seconds, table
from llmjobs.work.folder import Revisions, RunFolder

MOST_UNITS = 12
"""Up to this many units of a model are listed without --units."""


def render_plan(plan: Mapping[str, Any], *, units: bool) -> str:
    """One row per model, then problems, units and the total."""
    models = plan["models"]
    rows = [_row(model) for model in models]
    lines = table([HEADER, *rows]) if rows else []
    lines += call_lines(plan["endpoints"])
    for model in models:
        lines += [f"{model['model']}: {line}" for line in _told(model)]
    lines += [f"{model['model']}: {_phases(model)}" for model in models if model["time_s"] is not None]
    for model in models:
        known = [unit for unit in model["units"] if unit["tokens"] or unit["error"]]
        if known and (units or len(known) <= MOST_UNITS):
            lines += ["", *_units(model, known)]
        elif known:
            lines.append(
                f"{model['model']}: {plural(len(known), 'unit')}; --units lists {agree(len(known), 'it', 'them')}"
            )
    lines += [f"note: {line}" for line in plan["notes"]]
    if models:
        lines.append("memory: peak that the machine must have free, used for 'fits'; resident: also counts file pages")
    missing = sum(model["missing_bytes"] or 0 for model in models)
    total, ends = "time unknown", ""
    if plan["time_s"] is not None:
        ends = f" (including start {seconds(plan['start_s'])} and report {seconds(plan['report_s'])})"
        total = f"about {seconds(plan['time_s'])}"
    lines.append(f"total: {total}{ends}, {size_text(missing)} to download; nothing was run")
    return "\n".join(lines)


REPORT_S, REPORT_QUESTION_S = 8.0, 0.001
"""Seconds for a report's start and figures, and for each question of a model."""
HEADER = (
    "model", "runs on", "download", "weights", "key-value cache", "memory", "resident", "fits", "questions",
    "tokens", "computed", "time",
)  # fmt: skip


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    counts = [unit["tokens"] for unit in model["units"] if unit["tokens"]]

    def add(name: str) -> str:
        return f"{sum(one[name] for one in counts):,}" if counts else DASH

    precision = model["dtype"] if model["quantization"] == "none" else f"{model['quantization']}, {model['dtype']}"
    return (
        model["model"],
        f"{model['device']} ({precision})" if model["device"] else DASH,
        _download(model),
        gib(model["weight_bytes"]),
        gib(model["cache_bytes"]),
        gib(model["needed_bytes"]),
        gib(model["peak_bytes"]),
        {True: "yes", False: "NO", None: DASH}[model["fits"]],
        add("questions"),
        add("total_tokens"),
        add("distinct_tokens"),
        seconds(model["time_s"]) if counts else DASH,
    )


def _phases(model: Mapping[str, Any]) -> str:
    """How the time is made up."""
    names = {"load": "load_s", "trials": "prepare_s", "questions": "questions_s", "generation": "generation_s"}
    return ", ".join(f"{name} {seconds(model[key])}" for name, key in names.items() if model[key])


def _download(model: Mapping[str, Any]) -> str:
    if model["download_bytes"] is None:
        return DASH
    gated = ", gated" if model["gated"] else ""
    if not model["missing_bytes"]:
        return f"cached{gated}"
    return f"{size_text(model['missing_bytes'])}{gated}"


def _told(model: Mapping[str, Any]) -> list[str]:
    lines = [model["error"]] if model["error"] else []
    lines = [line.removeprefix(f"{model['model']}: ") for line in lines]
    if model["fits"] is False:
        others = [f"{name} needs {gib(size)}" for name, size in model["fits_with"].items()]
        remedy = "; ".join(others) or "no quantization makes it fit; use a smaller model"
        lines.append(f"does not fit: {gib(model['needed_bytes'])} of {gib(model['room_bytes'])}; {remedy}")
    lines += model["notes"]
    return lines + [f"{unit['key']}: {unit['error']}" for unit in model["units"] if unit["error"]]


def _units(model: Mapping[str, Any], units: Sequence[Mapping[str, Any]]) -> list[str]:
    head = (f"{model['model']}: unit", "questions", "tokens", "computed", "cached at most", "time")
    rows = []
    for unit in units:
        counts = unit["tokens"]
        if counts is None:
            rows.append((unit["key"], *[DASH] * 5))
            continue
        numbers = [f"{counts[n]:,}" for n in ("questions", "total_tokens", "distinct_tokens", "peak_cache_tokens")]
        rows.append((unit["key"], *numbers, seconds(unit["time_s"])))
    return table([head, *rows])


def run(study: Manifest, results: Path, *, as_json: bool = False, units: bool = False) -> int:
    """Print the plan; returns 1 if a model is not available or does not fit."""
    plan = make_plan(study, results)
    click.echo(json.dumps(plan, ensure_ascii=False, indent=2) if as_json else render_plan(plan, units=units))
    bad = any(model["error"] or model["fits"] is False or _unread(model) for model in plan["models"])
    bad = bad or any(calls["error"] for calls in plan["endpoints"])
    return EXIT_ERROR if bad else EXIT_OK


def _unread(model: dict[str, Any]) -> bool:
    return any(unit["error"] for unit in model["units"])


def make_plan(study: Manifest, results: Path) -> dict[str, Any]:
    """Plan every model of the manifest: for its ``eval``, and for the questions of its ``matrix``.

    Raises:
        DataError: the manifest names no local model, or its matrix an endpoint.

    """
    if study.matrix:
        make_cells(study)  # refuses what the matrix refuses
    local = [model for model in study.models if not model.endpoint]
    remote = [model for model in study.models if model.endpoint and study.eval]
    if not local and not remote:
        raise DataError(f"{study.name}: has no local model and no eval, so there is nothing to plan")
    silent = hub_silence()
    devices: Devices = {}
    with from_the_cache(silent):
        planned = _planned(study, local)
        plans = [_plan(study, model, results, silent, devices) for model in planned]
        calls = [_calls(study, model, results).to_record() for model in remote]
    notes = [f"{silent}, so sizes and access on the hub are not known"] if silent and _asks_hub(local) else []
    notes += [*_one_model_by_two_names(planned, plans), *_notes(study, plans)]
    models = [plan.to_record() for plan in plans]
    return {"run": study.name, "models": models, "endpoints": calls, "notes": notes, **_whole(plans)}


def _calls(study: Manifest, model: ModelSpec, results: Path) -> CallPlan:
    assert study.eval is not None
    return plan_calls(model, _tasks(study.model_copy(update={"models": [model]}), results), study.eval)


def _planned(study: Manifest, local: list[ModelSpec]) -> list[ModelSpec]:
    """The manifest's models; for a matrix with ``precisions``, each model at each of them that exists."""
    if study.eval or not (study.matrix and study.matrix.rungs):
        return local
    found = {}
    for model in local:
        for precision in study.matrix.rungs:
            with contextlib.suppress(ValueError):
                named = model.model_copy(update={"name": f"{model.name} {precision.name}"})
                found[named.name] = spec_at(named, precision)
    return list(found.values())


def _whole(plans: list[ModelPlan]) -> dict[str, float | None]:
    """What the whole command takes: its start, each model's phases, and a report."""
    times = [plan.time_s for plan in plans if plan.time_s is not None]
    if not times:
        return {"start_s": None, "report_s": None, "time_s": None}
    start_s = max(plan.start_s or 0.0 for plan in plans)
    questions = sum(unit.tokens.questions for plan in plans for unit in plan.units if unit.tokens)
    report_s = REPORT_S + REPORT_QUESTION_S * questions
    return {"start_s": start_s, "report_s": report_s, "time_s": start_s + sum(times) + report_s}


def _plan(study: Manifest, model: ModelSpec, results: Path, silent: str | None, devices: Devices) -> ModelPlan:
    if study.eval:
        tasks, section = _tasks(study.model_copy(update={"models": [model]}), results), study.eval
        return plan_model(
            model, tasks, batch_tokens=section.batch_tokens, threads=section.threads, silent=silent, devices=devices
        )
    if study.matrix:
        tasks = _tasks(questions_study(study, [model], matrix_benchmarks(study), "auto"), results)
        return plan_model(
            model, tasks, batch_tokens=study.matrix.batch_tokens, threads="auto", silent=silent, devices=devices
        )
    return plan_model(model, [], batch_tokens="auto", threads="auto", silent=silent, devices=devices)


def _tasks(study: Manifest, results: Path) -> list[Task]:
    return make_tasks(study, Revisions.of(RunFolder(results / study.name), writes=False))


def _asks_hub(models: list[ModelSpec]) -> bool:
    return any(not Path(model.id).expanduser().is_dir() and not model.id.startswith("llmjobs/") for model in models)


def _one_model_by_two_names(models: list[ModelSpec], plans: list[ModelPlan]) -> list[str]:
    """A line for each pair of names that stand for the same files with the same settings."""
    notes: list[str] = []
    seen: dict[str, str] = {}
    for model, plan in zip(models, plans, strict=True):
        if plan.revision:
            key = f"{plan.revision} {model.model_dump_json(exclude={'name', 'id', 'revision'})}"
            first = seen.setdefault(key, model.name)
            if first != model.name:
                notes.append(f"{first} and {model.name}: two names for one model (same files, same settings)")
    return notes


def _stop_notes(study: Manifest, plans: list[ModelPlan]) -> list[str]:
    """A line for each race of ``stop:``: times are for every question, and how many will probably be asked."""
    if not (study.eval and study.eval.stop):
        return []
    counts: dict[str, int] = {}
    for unit in max((plan.units for plan in plans), key=len, default=[]):
        name = "study" if study.eval.stop.over == "study" else unit.key.partition(".")[0]
        counts[name] = counts.get(name, 0) + (unit.tokens.questions if unit.tokens else 0)
    return [
        f"stop: times are for every question; {name}: {forecast(study.eval.stop, count, len(study.models))}"
        for name, count in counts.items()
        if count
    ]


def _notes(study: Manifest, plans: list[ModelPlan]) -> list[str]:
    notes = []
    if study.matrix:
        cells = len(make_cells(study))
        notes.append(
            f"matrix: {plural(cells, 'cell')} × {plural(study.matrix.repetitions, 'repetition')}, each with all of its "
            "questions; 'llmjobs doctor' shows which cells this machine can run"
        )
    notes += _stop_notes(study, plans)
    for name in ("converse", "mtbench"):
        if getattr(study, name):
            notes.append(f"{name}: not planned, because its tokens depend on the answers")
    missing = sum(plan.missing_bytes or 0 for plan in plans)
    cache = repo_folder("model", "x").parent
    free = shutil.disk_usage(next(f for f in (cache, *cache.parents) if f.exists())).free
    if missing and missing + ROOM_TO_SPARE_BYTES > free:
        notes.append(
            f"disk: {size_text(missing)} to download, {size_text(free)} free for {cache}; set HF_HOME to another disk"
        )
    return notes
