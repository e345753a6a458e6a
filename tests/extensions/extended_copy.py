"""Add something to a copy of the library and run it in a separate process, to check what CONTRIBUTING promises."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import llmjobs

LIBRARY = Path(llmjobs.__file__).parent


@dataclass
class ExtendedCopy:
    """``new`` and ``edited`` are the files that the extension took."""

    root: Path
    new: set[str]
    edited: set[str]

    @classmethod
    def make(cls, root: Path, new: dict[str, str], edits: dict[str, list[tuple[str, str]]]) -> "ExtendedCopy":
        """Copy the library below ``root`` by links; ``edits`` replace an anchor that occurs once in a file."""
        for source in LIBRARY.rglob("*"):
            copy = root / "llmjobs" / source.relative_to(LIBRARY)
            if source.is_file() and source.suffix != ".pyc":
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.symlink_to(source)
        for name, text in new.items():
            path = root / "llmjobs" / name
            assert not path.exists(), f"{name} is there already"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for name, changes in edits.items():
            path = root / "llmjobs" / name
            text = path.read_text(encoding="utf-8")
            for anchor, replacement in changes:
                assert text.count(anchor) == 1, f"{name}: {anchor!r} is there {text.count(anchor)} times"
                text = text.replace(anchor, replacement)
            path.unlink()
            path.write_text(text, encoding="utf-8")
        return cls(root, set(new), set(edits))

    def run(self, *arguments: object, status: int = 0) -> str:
        """Run ``llmjobs`` from the copy; returns what it printed."""
        environment = os.environ | {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "llmjobs", *map(str, arguments)]
        ended = subprocess.run(
            command, cwd=self.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert ended.returncode == status, ended.stdout
        return ended.stdout
