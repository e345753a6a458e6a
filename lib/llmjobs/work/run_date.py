"""One date for a whole run: chat templates print it as today's date, whenever a step runs."""

import contextlib
import datetime

from llmjobs.errors import FingerprintError
from llmjobs.manifest import Manifest
from llmjobs.work.folder import RunFolder, read_object

DATE_FILE = "date.json"
BEFORE_DATES = datetime.date(2024, 7, 26)
"""The date that chats wrote in every prompt before runs stored a date; an older run continues with it."""


def run_date(study: Manifest, folder: RunFolder, *, writes: bool = True) -> datetime.date:
    """The date that the run stored; at its first start the manifest's, otherwise today.

    Raises:
        FingerprintError: the manifest has another date than the one that the run started with.

    """
    kept = _kept(folder)
    if kept is None:
        began_before = any((folder.path / job).is_dir() for job in ("converse", "mtbench"))
        kept = study.date or (BEFORE_DATES if began_before else datetime.date.today())  # noqa: DTZ011 - the person's day
        if writes:
            folder.write_json(DATE_FILE, {"date": kept.isoformat()})
    if study.date is not None and study.date != kept:
        raise FingerprintError(
            f"{folder.path.name}: date was {kept.isoformat()} and is now {study.date.isoformat()}, which changes the "
            "prompts; undo the change, give the run another name (--set name=…), or start over with --fresh"
        )
    return kept


def _kept(folder: RunFolder) -> datetime.date | None:
    path = folder.path / DATE_FILE
    if found := read_object(path):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return datetime.date.fromisoformat(found["date"])
        raise FingerprintError(
            f'{path}: does not contain a date; restore {{"date": "YYYY-MM-DD"}}, or start over with --fresh'
        )
    return None
