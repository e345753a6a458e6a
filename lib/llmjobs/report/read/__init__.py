"""Readers: one path in, one :class:`RawRun` out."""

import json
from pathlib import Path

from llmjobs.errors import DataError
from llmjobs.report.read import helm, inspect_log, lm_eval
from llmjobs.report.read.json_files import MALFORMED, read_text
from llmjobs.report.read.run_folder import is_run_folder, read_run_folder
from llmjobs.report.read.table import read_table
from llmjobs.report.study import RawRun

KNOWN = (
    "a run folder of llmjobs, a folder with lm-eval's samples_*.jsonl, an inspect_ai JSON log, a HELM run"
    " folder, or a CSV, TSV or JSONL with a model, a question id, the answer and the gold answer"
)


def read(path: Path, name: str | None = None) -> list[RawRun]:
    """Read ``path`` by what it holds; a folder of run folders gives each of them.

    ``name`` names the benchmark of a table that has no column for it.

    Raises:
        DataError: there is nothing that can be read, or it is not of the form that its kind has.

    """
    try:
        return _read(path, name)
    except MALFORMED as error:
        what = f"{type(error).__name__}: {error}"[:200]
        raise DataError(f"{path}: is not of the form that such results have ({what}); make them anew") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read(path: Path, name: str | None) -> list[RawRun]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; known are {KNOWN}")
    if path.is_file():
        return [_read_file(path, name)]
    if is_run_folder(path):
        return [read_run_folder(path)]
    if lm_eval.sample_files(path):
        return [lm_eval.read_lm_eval(path)]
    if helm.is_helm_folder(path):
        return [helm.read_helm(path)]
    logs = sorted(file for file in path.glob("*.json") if inspect_log.is_inspect_log(file))
    if logs:
        return [inspect_log.read_inspect(file) for file in logs]
    inner = sorted(child for child in path.iterdir() if child.is_dir() and (is_run_folder(child) or _other(child)))
    if inner:
        return [run for child in inner for run in read(child)]
    raise DataError(f"{path}: nothing here that can be read; known are {KNOWN}")


def _other(path: Path) -> bool:
    return bool(lm_eval.sample_files(path)) or helm.is_helm_folder(path)


def _read_file(path: Path, name: str | None) -> RawRun:
    if path.suffix in (".csv", ".tsv"):
        return read_table(path, name)
    if path.name.startswith("samples_") and path.suffix == ".jsonl":
        return lm_eval.read_lm_eval(path.parent, [path])
    if path.suffix == ".jsonl":
        return read_table(path, name)
    if path.suffix == ".json":
        if inspect_log.is_inspect_log(path):
            return inspect_log.read_inspect(path)
        raise DataError(f"{path.name}: {_kind_of_json(path)}; known are {KNOWN}")
    raise DataError(f"{path.name}: unknown kind of file; known are {KNOWN}")


def _kind_of_json(path: Path) -> str:
    try:
        json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    return "JSON, but not a log of inspect_ai"
