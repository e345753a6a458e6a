"""Calls to endpoints in an eval: their limits and prices, and the questions whose calls failed, to be asked again.

A question whose call failed is recorded in its place, in error. The next run moves the unit back to the first such
question; answers that came are taken from the journal of calls and are not paid again.
"""

from typing import Any

from llmjobs.calls.spending import Rate, Spending
from llmjobs.manifest import EvalSection
from llmjobs.work import cursor as cursors
from llmjobs.work.folder import RECORDS, RunFolder
from llmjobs.work.journal import read_records
from llmjobs.work.units import Unit


def make_spending(section: EvalSection) -> Spending:
    """Prices and limits of a study, nothing spent yet."""
    prices = {name: limits.price for name, limits in section.endpoints.items() if limits.price}
    rates = {name: Rate(price.prompt, price.completion) for name, price in prices.items()}
    limit = section.spending
    return Spending(rates, tokens=limit.tokens, cost=limit.cost, currency=section.currency, section="eval")


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
        cursor, _ = cursors.load(place, unit.declared)
        cursors.rewind(place, cursor, min(int(one["step"]) for one in failed))
