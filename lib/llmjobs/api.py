"""The Python interface, for notebooks: run a study, look at its results. The same runner as the command line."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmjobs.errors import DataError
from llmjobs.manifest import Manifest, load_manifest
from llmjobs.runfolder.folder import read_json
from llmjobs.runfolder.journal import read_records

if TYPE_CHECKING:
    import pandas as pd


def run(
    manifest: str | Path | Manifest,
    *,
    results: str | Path = "results",
    overrides: Sequence[str] = (),
    fresh: bool = False,
) -> "Results":
    """Run every section of a manifest (or go on with it) and return the results.

    ``overrides`` are ``path=value`` strings as for ``--set``. A unit that fails is in ``Results.failed``, not raised.

    Raises:
        LlmjobsError: the manifest is not valid or the folder cannot be used; one line.

    """
    from llmjobs.jobs.sections import run_all

    study = manifest if isinstance(manifest, Manifest) else load_manifest(manifest, overrides)
    run_all(study, Path(results), fresh=fresh)
    return Results(Path(results) / study.name)


class Results:
    """A run folder, opened for reading; also one that is still running or was made on another machine."""

    def __init__(self, folder: str | Path) -> None:
        """Open ``folder``, for example ``results/small``.

        Raises:
            DataError: there is no run in it.

        """
        self.folder = Path(folder)
        if not (self.folder / "manifest.yaml").is_file():
            raise DataError(f"{self.folder}: holds no run (no manifest.yaml); name a folder below the results")

    @property
    def summary(self) -> dict[str, Any]:
        """The run's ``summary.json``; empty before the first job ended."""
        path = self.folder / "summary.json"
        return dict(read_json(path)) if path.exists() else {}

    @property
    def failed(self) -> dict[str, str]:
        """Unit → the line that says why it failed."""
        parts = [part for part in self.summary.values() if isinstance(part, dict)]
        return {one["unit"]: one["error"] for part in parts for one in part.get("units_failed", ())}

    def records(self, job: str = "eval") -> "pd.DataFrame":
        """Every record of a job as a table, one row a record; a torn last line of a running job is left out."""
        import pandas as pd

        files = sorted((self.folder / job).rglob("records.jsonl"))
        return pd.DataFrame([record for path in files for record in read_records(path, allow_torn=True)])

    def report(self, output: str | Path | None = None) -> Path:
        """Write the PDF with its figures and notes; returns its path."""
        from llmjobs.report.job import make_report

        made = make_report([self.folder], Path(output) if output else self.folder / "report.pdf")
        return Path(made.pdf)

    def figures(self) -> list[Path]:
        """The figures that the report drew, as PNG files."""
        return sorted((self.folder / "figures").glob("*.png"))

    def accuracy(self) -> "pd.DataFrame":
        """One row a model and benchmark: accuracy, its interval, questions and time."""
        import pandas as pd

        rows = []
        for model in self.summary.get("eval", {}).get("models", ()):
            times = {key: model[key] for key in ("questions_per_s", "real_s", "gpu_s")}
            for found in model["benchmarks"]:
                figures = {key: found[key] for key in ("benchmark", "n", "acc", "low", "high", "macro_acc")}
                rows.append({"model": model["model"], **figures, **times})
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        """What a notebook shows: the accuracy table and the figures."""
        table = self.accuracy().to_html(index=False, float_format=lambda value: f"{value:.3f}", escape=True)
        return f"<h4>{html.escape(self.folder.name)}</h4>{table}{''.join(map(_image, self.figures()))}"

    def __repr__(self) -> str:
        """Name the folder."""
        return f"Results({str(self.folder)!r})"


def _image(path: Path) -> str:
    import base64

    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" style="max-width:48em" src="data:image/png;base64,{data}">'
