"""Which unit a worker takes next: units of one group (a model) follow each other, so that it is loaded seldom.

No Ray in here: the simulation in ``benchmarks/scale.py`` runs this very code.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llmjobs.cluster.demand import Demand
from llmjobs.runner.units import Unit


@dataclass
class _Group:
    """The units of one model that nobody has yet, and who works on it."""

    demand: Demand
    units: deque[Unit] = field(default_factory=deque)
    items: int = 0
    holders: set[str] = field(default_factory=set)
    is_open: bool = False
    """Whether a holder has loaded it, so that another may join and plan the same."""
    load_s: float | None = None
    item_s: float | None = None

    def push(self, unit: Unit, *, first: bool = False) -> None:
        (self.units.appendleft if first else self.units.append)(unit)
        self.items += _items(unit)

    def pop(self) -> Unit:
        unit = self.units.popleft()
        self.items -= _items(unit)
        return unit


class Assignment:
    """Units that are still to be given out.

    A worker stays with its group while that has units. A free one takes what has the most work for each worker on it:
    a group of its own, or a part of one that others have loaded, where that saves more time than loading it takes.
    """

    def __init__(self, units: Iterable[Unit], demands: Mapping[str, Demand]) -> None:
        """``demands`` by group."""
        self._groups: dict[str, _Group] = {}
        self._given: dict[str, Unit] = {}
        self._rates: dict[str, float] = {}
        self._rate = 1.0
        """Seconds of an item for each unit of weight, over the groups that were measured."""
        for unit in units:
            self._groups.setdefault(unit.group, _Group(demands[unit.group])).push(unit)

    @property
    def is_over(self) -> bool:
        """Whether everything was given out and nothing came back."""
        return not self._given and not any(group.units for group in self._groups.values())

    def demands(self) -> dict[Demand, int]:
        """What workers are wanted for, and how many more could start at once."""
        wanted: dict[Demand, int] = {}
        for group in self._groups.values():
            if group.units:
                most = 1 if not group.holders else len(group.units) if self._pays(group) else 0
                wanted[group.demand] = wanted.get(group.demand, 0) + most
        return wanted

    def take(self, worker: str, demand: Demand, holds: str | None) -> Unit | None:
        """Give ``worker``, which has ``holds`` loaded, its next unit; None where there is nothing for it now."""
        own = self._groups.get(holds or "")
        if own is not None and own.units:
            return self._give(own, worker)
        for group in self._groups.values():
            group.holders.discard(worker)
        found = max(
            (g for g in self._groups.values() if g.demand == demand and g.units and (not g.holders or self._pays(g))),
            key=lambda group: self._seconds(group) / (len(group.holders) + 1),
            default=None,
        )
        return self._give(found, worker) if found else None

    def ended(self, unit: Unit) -> None:
        """Forget a unit: it is done, or given up."""
        self._given.pop(unit.path, None)

    def give_back(self, unit: Unit) -> None:
        """Put a unit back that did not end; it comes first."""
        self._given.pop(unit.path, None)
        self._groups[unit.group].push(unit, first=True)

    def leave(self, worker: str) -> None:
        """Forget a worker."""
        for group in self._groups.values():
            group.holders.discard(worker)

    def learn(self, name: str, *, load_s: float | None = None, item_s: float | None = None) -> None:
        """Note what was measured of a group: how long it loads, how long an item takes."""
        group = self._groups[name]
        group.is_open = True
        group.load_s = group.load_s if load_s is None else load_s
        if item_s is not None:
            group.item_s = item_s
            self._rates[name] = item_s / group.demand.weight
            self._rate = sum(self._rates.values()) / len(self._rates)

    def _give(self, group: _Group, worker: str) -> Unit:
        unit = group.pop()
        group.holders.add(worker)
        self._given[unit.path] = unit
        return unit

    def _pays(self, group: _Group) -> bool:
        """Whether one more worker on a loaded group saves more than the load that it begins with."""
        if not group.is_open:
            return False
        if group.item_s is None or group.load_s is None:
            return len(group.units) > 1
        return self._seconds(group) / (len(group.holders) + 1) > group.load_s

    def _seconds(self, group: _Group) -> float:
        """What is left of a group; what was not measured is taken for as fast as the others by their weights."""
        return group.items * (group.item_s or group.demand.weight * self._rate)


def _items(unit: Unit) -> int:
    return max(unit.size, 1)
