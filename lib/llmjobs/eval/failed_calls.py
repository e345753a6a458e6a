"""Ask again the questions of an eval whose calls to a server failed.

A question whose call failed is recorded in its place, in error. The next run moves the unit back to the first such
question; answers that came are taken from the journal of calls and are not paid again.
"""

from typing import Any

from llmjobs.work import unit_progress
from llmjobs.work.folder import RECORDS, RunFolder
from llmjobs.work.journal import read_records
from llmjobs.work.units import Unit


def ask_again(folder: RunFolder, unit: Unit) -> None:
    """Move a unit back to the first question whose call failed.

    Raises:
        FingerprintError: the unit was made with other settings.

    """
    place = folder.unit(unit.path)
    path = folder.path / unit.path / RECORDS
    if not place.checkpoint.exists() or not path.exists():
        return
    failed: list[dict[str, Any]] = [one for one in read_records(path, allow_torn=True) if one.get("temporary")]
    if failed:
        cursor, _ = unit_progress.load(place, unit.declared)
        unit_progress.rewind(place, cursor, min(int(one["step"]) for one in failed))
