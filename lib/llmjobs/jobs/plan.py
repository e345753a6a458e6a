"""``plan``: before the first hour. What would run, how much of it, and what stands in the way; runs no model."""

import json
import shutil
from pathlib import Path
from typing import Any

import click

from llmjobs.errors import EXIT_ERROR, EXIT_OK, DataError
from llmjobs.hub.progress import size_text
from llmjobs.hub.repositories import repo_folder
from llmjobs.jobs.doctor_hub import from_the_cache, hub_silence
from llmjobs.jobs.eval_tasks import Task, make_tasks
from llmjobs.jobs.fetch import ROOM_TO_SPARE_BYTES
from llmjobs.jobs.matrix_cells import make_cells, matrix_benchmarks, questions_study
from llmjobs.jobs.plan_model import Devices, ModelPlan, plan_model
from llmjobs.jobs.plan_table import render_plan
from llmjobs.jobs.revisions import Revisions
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.runfolder.folder import RunFolder


def run(study: Manifest, results: Path, *, as_json: bool = False, units: bool = False) -> int:
    """Print the plan; returns 1 where a model cannot be had or does not fit."""
    plan = make_plan(study, results)
    click.echo(json.dumps(plan, ensure_ascii=False, indent=2) if as_json else render_plan(plan, units=units))
    bad = any(model["error"] or model["fits"] is False or _unread(model) for model in plan["models"])
    return EXIT_ERROR if bad else EXIT_OK


def _unread(model: dict[str, Any]) -> bool:
    return any(unit["error"] for unit in model["units"])


def make_plan(study: Manifest, results: Path) -> dict[str, Any]:
    """Plan every model of the manifest: for its ``eval``, and for the questions of its ``matrix``.

    Raises:
        DataError: the manifest names no local model.

    """
    local = [model for model in study.models if not model.endpoint]
    if not local:
        raise DataError(f"{study.name}: names no local model; there is nothing to plan")
    silent = hub_silence()
    devices: Devices = {}
    with from_the_cache(silent):
        plans = [_plan(study, model, results, silent, devices) for model in local]
    notes = [f"{silent}: sizes and access on the hub are not known"] if silent and _asks_hub(local) else []
    notes += _notes(study, plans)
    return {"run": study.name, "models": [plan.to_record() for plan in plans], "notes": notes}


def _plan(study: Manifest, model: ModelSpec, results: Path, silent: str | None, devices: Devices) -> ModelPlan:
    if study.eval:
        tasks, section = _tasks(study.model_copy(update={"models": [model]}), results), study.eval
        return plan_model(
            model, tasks, batch_tokens=section.batch_tokens, threads=section.threads, silent=silent, devices=devices
        )
    if study.matrix:
        tasks = _tasks(questions_study(study, model, matrix_benchmarks(study), "auto"), results)
        return plan_model(
            model, tasks, batch_tokens=study.matrix.batch_tokens, threads="auto", silent=silent, devices=devices
        )
    return plan_model(model, [], batch_tokens="auto", threads="auto", silent=silent, devices=devices)


def _tasks(study: Manifest, results: Path) -> list[Task]:
    return make_tasks(study, Revisions.of(RunFolder(results / study.name), writes=False))


def _asks_hub(models: list[ModelSpec]) -> bool:
    return any(not Path(model.id).expanduser().is_dir() and not model.id.startswith("llmjobs/") for model in models)


def _notes(study: Manifest, plans: list[ModelPlan]) -> list[str]:
    notes = []
    if study.matrix:
        cells = len(make_cells(study))
        notes.append(
            f"matrix: {cells} cells × {study.matrix.repetitions} repetitions, each with all of its questions; "
            "'llmjobs doctor' says which this machine can run"
        )
    for name in ("converse", "mtbench"):
        if getattr(study, name):
            notes.append(f"{name}: its tokens depend on what is answered; not planned")
    missing = sum(plan.missing_bytes or 0 for plan in plans)
    cache = repo_folder("model", "x").parent
    free = shutil.disk_usage(next(f for f in (cache, *cache.parents) if f.exists())).free
    if missing and missing + ROOM_TO_SPARE_BYTES > free:
        notes.append(f"disk: {size_text(missing)} to fetch, {size_text(free)} free for {cache}; set HF_HOME to another")
    return notes
