"""Counts how often a cell was started without a result. The count is saved before each start to include kills."""

import contextlib
from dataclasses import asdict, dataclass, fields

from llmjobs.errors import DataError
from llmjobs.machine.child import boot_id, oom_kills, own_oom_kills
from llmjobs.terminal_text import plural
from llmjobs.work.folder import RunFolder, read_object

FILE = "attempts.json"
MOST_KILLS = 2
"""A cell that was killed for memory this often is recorded as killed and not tried again."""
MOST_VANISHED = 5
"""The same for ends without evidence of a memory kill: the kernel's counter did not move, or there is none."""


@dataclass
class Attempts:
    """Earlier starts of a cell since its last result."""

    kills: int = 0
    """Starts that ended by a kill for memory: the cell's own, or that of the whole run with it."""
    vanished: int = 0
    """Unobserved ends on systems without a kill counter, and kills that the counter does not include."""
    running: bool = False
    boot: str | None = None
    oom_kills: int | None = None
    """The counter of this process's control group if it has one, else that of the machine."""
    group: str | None = None

    @property
    def given_up(self) -> str | None:
        """Why it is not tried again; None if it is."""
        if self.kills >= MOST_KILLS:
            return f"killed for lack of memory {'once' if self.kills == 1 else f'{self.kills} times'}"
        if self.vanished >= MOST_VANISHED:
            return (
                f"{plural(self.vanished, 'attempt')} ended without an error message while this cell was running, "
                "most likely for lack of memory"
            )
        return None


class AttemptsFile:
    """The attempts of one cell, in its folder."""

    def __init__(self, folder: RunFolder, cell_folder: str) -> None:
        """Read the counts of earlier runs, and count a start whose end was not observed."""
        self._folder, self._file = folder, f"{cell_folder}/{FILE}"
        self.attempts = self._read()
        if self.attempts.running:
            self._count_unseen_end()
            self._write()

    def start(self) -> None:
        """Record a start before it happens."""
        self.attempts.running = True
        self.attempts.boot = boot_id()
        self.attempts.group, self.attempts.oom_kills = own_oom_kills() or (None, oom_kills())
        self._write()

    def end(self, *, killed: bool) -> None:
        """Record an observed end, by SIGKILL or not.

        If there is a control group, its count of kills for memory shows who killed it.
        """
        self.attempts.running = False
        if killed:
            own, before = own_oom_kills(), self.attempts.oom_kills
            is_foreign = own is not None and own[0] == self.attempts.group and before is not None and own[1] <= before
            self.attempts.vanished += is_foreign
            self.attempts.kills += not is_foreign
        self._write()

    def clear(self) -> None:
        """Clear the counts, because the cell has a result."""
        self.attempts = Attempts()
        self._write()

    def _count_unseen_end(self) -> None:
        group, now = own_oom_kills() or (None, oom_kills())
        before = self.attempts.oom_kills if self.attempts.group == group else None
        self.attempts.running = False
        if before is None or now is None:
            self.attempts.vanished += 1
        elif self.attempts.boot == boot_id() and now > before:
            self.attempts.kills += 1

    def _read(self) -> Attempts:
        known, empty = {}, Attempts()
        with contextlib.suppress(DataError):
            known = read_object(self._folder.path / self._file)
        texts, flags = ("boot", "group"), ("running",)
        for one in fields(Attempts):
            kind = str if one.name in texts else bool if one.name in flags else int
            if type(known.get(one.name)) is kind:
                setattr(empty, one.name, known[one.name])
        return empty

    def _write(self) -> None:
        self._folder.write_json(self._file, asdict(self.attempts))
