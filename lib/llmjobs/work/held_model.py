"""The one model that a job has loaded: units of one model follow one another, so each model is loaded once."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from llmjobs.clocks import measured
from llmjobs.errors import LlmjobsError
from llmjobs.memory import WATCH


class Closable(Protocol):
    """Something that is freed after use."""

    def close(self) -> None:
        """Free it."""


Key = TypeVar("Key")
Model = TypeVar("Model", bound=Closable)


class HeldModel(Generic[Key, Model]):
    """Holds one loaded model, and the errors of models that could not be loaded.

    Peak memory is measured from when a model begins to load until it is freed.
    """

    def __init__(self) -> None:
        self._held: tuple[Key, Model] | None = None
        self._failed: list[tuple[Key, LlmjobsError]] = []
        self._load_s: float | None = None

    def get(self, key: Key, load: Callable[[], Model]) -> Model:
        """The model of ``key``; if another one is held, it is freed first.

        Raises:
            LlmjobsError: it cannot be loaded, now or when another unit asked for it. It is not tried twice.

        """
        if self._held and self._held[0] == key:
            return self._held[1]
        self.close()
        for other, error in self._failed:
            if other == key:
                raise error
        try:
            WATCH.begin()
            with measured() as span:
                model = load()
        except LlmjobsError as error:
            self._failed.append((key, error))
            raise
        self._load_s = round(span.real_s, 6)
        self._held = (key, model)
        return model

    def take_load_s(self) -> float | None:
        """Seconds of loading the model, for the first unit that asks."""
        taken, self._load_s = self._load_s, None
        return taken

    def close(self) -> None:
        """Free the model."""
        if self._held:
            self._held[1].close()
            self._held = None
            WATCH.end()
