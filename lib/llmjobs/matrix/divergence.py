"""KL divergence of each precision from the reference: the comparisons as units of the matrix, and their figures."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmjobs import file_operations
from llmjobs.manifest.matrix import DivergenceSection
from llmjobs.matrix.cells import Cell
from llmjobs.matrix.divergence_process import read_text
from llmjobs.statistics.divergence import Divergence, summarize
from llmjobs.statistics.intervals import Interval
from llmjobs.work.journal import Record

CHILD = "llmjobs.matrix.divergence_process"
REFERENCE, COMPARED = "distributions", "divergence"
PARTS = "parts"
REFUSED = "refused"


@dataclass(frozen=True)
class Comparison:
    """A unit: the reference's distributions (``against`` None), or a cell compared with them."""

    cell: Cell
    against: Cell | None

    @property
    def path(self) -> str:
        """Its folder in the run."""
        return f"{self.cell.folder}/{REFERENCE if self.against is None else COMPARED}"

    @property
    def reference_path(self) -> str:
        """The folder with the reference's distributions."""
        return f"{(self.against or self.cell).folder}/{REFERENCE}"


def comparisons(cells: Sequence[Cell], unavailable: Mapping[str, str]) -> list[Comparison]:
    """All comparisons of a grid, each model's reference first: the first cell of that precision that can run here."""
    found = []
    for model in dict.fromkeys(cell.model.name for cell in cells):
        own = [cell for cell in cells if cell.model.name == model and cell.name not in unavailable]
        reference = next((cell for cell in own if cell.is_reference), None)
        if reference is not None:
            found.append(Comparison(reference, None))
            found += [Comparison(cell, reference) for cell in own if cell is not reference]
    return found


def declared_settings(section: DivergenceSection) -> dict[str, Any]:
    """What decides which texts are compared, and where.

    Raises:
        DataError: the text cannot be read.

    """
    content = read_text(section.text) if section.chunks else ""
    return {
        "text_hash": hashlib.sha256(content.encode()).hexdigest(),
        "chunks": section.chunks,
        "context": section.context,
        "prompts": section.prompts,
        "disk_gib": section.disk_gib,
    }


def expected_files(records: Sequence[Record]) -> dict[str, str]:
    """Name and SHA-256 of each text's distributions, from the records of the reference's unit."""
    return {f"{line['source']}-{line['index']:04d}": str(line["sha256"]) for line in records}


def damaged(folder: Path, expected: Mapping[str, str]) -> list[str]:
    """Names of distributions that are missing or are not what was written."""
    return [name for name, sha256 in expected.items() if _sha256(folder / f"{name}.dist") != sha256]


def _sha256(path: Path) -> str | None:
    found = hashlib.sha256()
    try:
        with file_operations.open_to_read(path) as stream:
            while block := stream.read(1 << 22):
                found.update(block)
    except OSError:
        return None
    return found.hexdigest()


def figures(records: Sequence[Record], reference: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """The divergence by source (``text``, ``prompts``), as ``cell.json`` holds it."""
    known = {(line["source"], line["index"]): line for line in reference}
    found = {}
    for source in dict.fromkeys(line["source"] for line in records):
        lines = [line for line in records if line["source"] == source]
        texts = [line["index"] for line in lines for _ in line["kl"]]
        nll = [value for line in lines for value in line["nll"]]
        nll_reference = [value for line in lines for value in known[source, line["index"]]["nll"]]
        found[source] = to_json(
            summarize(
                [value for line in lines for value in line["kl"]],
                [value for line in lines for value in line["same_top"]],
                texts,
                nll or None,
                nll_reference or None,
            )
        )
    return found


def to_json(found: Divergence) -> dict[str, Any]:
    """Plain values; None for figures that cannot be computed."""
    spreads = {
        name: _interval(getattr(found, name)) for name in ("mean", "median", "p99", "same_top", "perplexity_ratio")
    }
    return {"positions": found.positions, "texts": found.texts, **spreads}


def _interval(found: Interval | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    return {
        name: float(f"{one:.6g}") if math.isfinite(one := float(getattr(found, name))) else None
        for name in ("value", "low", "high")
    }


# Finished parts of a comparison, so that a stopped one resumes after them.
