"""The ladder: precisions and engines side by side in one table, each compared with the reference precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from llmjobs.matrix.summary import Flips, cell_names, find_flips
from llmjobs.records import DONE, CellResult
from llmjobs.statistics.paired import PairedDifference, difference_from_counts, holm, simultaneous_level


@dataclass(frozen=True)
class Rung:
    """One precision, and what it changes compared with the reference."""

    cell: CellResult
    name: str
    flips: Flips | None
    """None for the reference, or if there is no reference to compare with."""
    p_holm: float | None
    """McNemar's exact p-value, adjusted by Holm's procedure over all rungs that are compared."""
    together: PairedDifference | None
    """The difference with an interval that holds for all rungs at the same time (Bonferroni)."""

    @property
    def prefill(self) -> float | None:
        """Prompt tokens per second."""
        return self.cell.value("prefill_tokens_per_s")

    @property
    def decode(self) -> float | None:
        """New tokens per second."""
        return self.cell.value("decode_tokens_per_s")


@dataclass(frozen=True)
class Ladder:
    """The cells of a matrix that lists ``precisions``."""

    cells: Sequence[CellResult]

    @classmethod
    def of(cls, cells: Sequence[CellResult]) -> "Ladder":
        """Take those cells that have a precision: model by model, the reference first, then by bytes of weights."""
        models = list(dict.fromkeys(cell.model for cell in cells))

        def place(cell: CellResult) -> tuple[int, bool, float, str]:
            return models.index(cell.model), not cell.is_reference, -(cell.value("weight_bytes") or 0.0), cell.cell

        return cls(sorted((cell for cell in cells if cell.precision), key=place))

    @cached_property
    def rungs(self) -> list[Rung]:
        """The finished cells."""
        done = [cell for cell in self.cells if cell.status == DONE and cell.repetitions]
        flips = {id(flip.cell): flip for flip in find_flips(done)}
        compared = list(flips.values())
        adjusted = dict(zip(flips, holm([flip.result.p for flip in compared]), strict=True))
        level = simultaneous_level(len(compared))
        found = []
        for cell, name in zip(done, cell_names(done), strict=True):
            flip = flips.get(id(cell))
            result = flip.result if flip else None
            wide = result and difference_from_counts(result.only_first, result.only_second, result.n, level)
            found.append(Rung(cell, name, flip, adjusted.get(id(cell)), wide))
        return found
