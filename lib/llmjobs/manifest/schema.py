"""The whole manifest: one study, a section for each job that it wants."""

import datetime
from typing import Self

from pydantic import Field, model_validator

from llmjobs.manifest.chat_section import ChatSection, ConverseSection
from llmjobs.manifest.eval_section import EvalSection
from llmjobs.manifest.fields import FileName, Section
from llmjobs.manifest.matrix_section import MatrixSection
from llmjobs.manifest.model_section import ModelSpec
from llmjobs.manifest.mtbench_section import MTBenchSection
from llmjobs.manifest.suggest import one_of


class Manifest(Section):
    """A study: models once, then what is done with them."""

    name: FileName
    """Name of the run's folder under the results."""
    description: str = ""
    """One line for people."""
    date: datetime.date | None = None
    """What chat templates print as today's date, in every prompt of the run; the day of the run's first start when not
    given."""
    models: list[ModelSpec] = Field(min_length=1)
    """The models that every job takes; an id alone takes the defaults."""
    eval: EvalSection | None = None
    """Accuracy on benchmarks (`llmjobs eval`)."""
    chat: ChatSection | None = None
    """How the chat agent talks (`llmjobs chat`, `llmjobs serve`)."""
    converse: ConverseSection | None = None
    """Scripted conversations (`llmjobs converse`)."""
    mtbench: MTBenchSection | None = None
    """MT-Bench (`llmjobs mtbench`)."""
    matrix: MatrixSection | None = None
    """Devices and precisions side by side (`llmjobs matrix`)."""

    @model_validator(mode="after")
    def _distinct_models(self) -> Self:
        names = [m.name.lower() for m in self.models]
        if twice := next((m.name for m in self.models if names.count(m.name.lower()) > 1), None):
            raise ValueError(f"models: the name {twice!r} stands for two models; give each a name: of its own")
        for name in (self.converse.models if self.converse else None) or ():
            one_of("converse.models", name, [m.name for m in self.models])
        return self

    def named(self, names: list[str] | None) -> list[ModelSpec]:
        """The models of those names, in the manifest's order; all for None."""
        return [m for m in self.models if names is None or m.name in names]
