"""Which reader a path needs, by its content: our run folders, logs of other tools, tables."""

import json
from pathlib import Path

from llmjobs.errors import DataError, plain_reason
from llmjobs.report.read import helm, inspect_log, lm_eval
from llmjobs.report.read.csv_or_jsonl import read_table
from llmjobs.report.read.json_files import MALFORMED, read_text
from llmjobs.report.read.run_folder import is_run_folder, read_run_folder
from llmjobs.report.study import RawRun

HINTS = {
    ".xlsx": "an Excel workbook; save it as CSV",
    ".xls": "an Excel workbook; save it as CSV",
    ".ods": "a spreadsheet; save it as CSV",
    ".parquet": "a parquet file; write it as CSV or JSONL",
    ".gz": "a compressed file; unpack it first",
    ".zip": "an archive; unpack it first",
}
TABLES = (".csv", ".tsv", ".jsonl", ".txt")
KNOWN = (
    "a run folder of llmjobs, a folder with lm-eval's samples_*.jsonl, an inspect_ai log (.eval or JSON), a folder of"
    " HELM runs, or a CSV, TSV or JSONL with a model, a question id, the answer and the gold answer"
)


def read(path: Path, name: str | None = None) -> list[RawRun]:
    """Read ``path`` according to its content; a folder of run folders yields each of them.

    ``name`` names the benchmark of a table without such a column.

    Raises:
        DataError: nothing can be read, or a file does not have the format of its kind.

    """
    try:
        return _read(path, name)
    except MALFORMED as error:
        raise DataError(
            f"{path}: does not have the expected format ({plain_reason(error, 200)}); write these results again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read(path: Path, name: str | None) -> list[RawRun]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; the report reads {KNOWN}")
    if path.is_file():
        return [_read_file(path, name)]
    if is_run_folder(path):
        return [read_run_folder(path)]
    found = _logs(path)
    found += [read_run_folder(child) for child in sorted(path.iterdir()) if child.is_dir() and is_run_folder(child)]
    if found:
        return found
    inner = [run for child in sorted(path.iterdir()) if child.is_dir() for run in _logs(child)]
    if inner:
        return inner
    tables = sorted(file.name for file in path.iterdir() if file.suffix in TABLES)
    hint = f" Pass tables as files: {path / tables[0]}." if tables else ""
    raise DataError(f"{path}: contains no results; the report reads {KNOWN}.{hint}")


def _logs(path: Path) -> list[RawRun]:
    """Return the files that other tools left in a folder."""
    found = []
    if lm_eval.sample_files(path):
        found.append(lm_eval.read_lm_eval(path))
    if helm.helm_folders(path):
        found.append(helm.read_helm(path))
    files = sorted(file for pattern in ("*.eval", "*.json") for file in path.glob(pattern))
    return found + [inspect_log.read_inspect(file) for file in files if inspect_log.is_inspect_log(file)]


def _read_file(path: Path, name: str | None) -> RawRun:
    if not path.stat().st_size:
        raise DataError(f"{path.name}: the file is empty; write these results again, or leave it out")
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return read_table(path, name)
    if path.name.startswith("samples_") and path.suffix == ".jsonl":
        return lm_eval.read_lm_eval(path.parent, [path])
    if path.suffix == ".jsonl":
        return read_table(path, name)
    if path.suffix == ".eval":
        return inspect_log.read_inspect(path)
    if path.suffix == ".json":
        if inspect_log.is_inspect_log(path):
            return inspect_log.read_inspect(path)
        if _is_list(path):
            return read_table(path, name)
        raise DataError(f"{path.name}: {_kind_of_json(path)}; the report reads {KNOWN}")
    raise DataError(f"{path.name}: {HINTS.get(path.suffix.lower(), 'unknown kind of file')}; the report reads {KNOWN}")


def _is_list(path: Path) -> bool:
    """Return whether a JSON file is an array of objects, that is, a table's rows."""
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError, DataError):
        return False
    return isinstance(value, list) and any(isinstance(line, dict) for line in value)


def _kind_of_json(path: Path) -> str:
    try:
        json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    return "JSON, but not a log of inspect_ai"
