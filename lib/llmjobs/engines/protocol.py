"""The interface of every engine: load a model, score, generate, chat, measure and describe. No torch.

An engine runs models of one kind of file or library. It is a module named in the registry (:class:`EngineModule`); its
``open_model`` returns one loaded model (:class:`Engine`). Jobs see nothing else.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from llmjobs.benchmarks.scoring_requests import Prompt, Request, Score
from llmjobs.calls.spending import PaidCalls
from llmjobs.clocks import DeviceClock
from llmjobs.engines.batches import UnitPlan
from llmjobs.engines.locate import Located
from llmjobs.engines.pass_time import Budget
from llmjobs.engines.speed import Speed
from llmjobs.hub.repositories import RemoteFile, RemoteRepo
from llmjobs.manifest.models import ModelSpec
from llmjobs.thinking import ThinkingLimit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Warn = Callable[[str], None]
"""A function that receives one-line warnings, for example about a fallback."""


DEFAULT_LENGTH = 2048
"""Longest input in tokens if a model's files do not say."""


@dataclass(frozen=True)
class Description:
    """The properties of a loaded model, read from its weights and not from the request."""

    id: str
    revision: str | None
    architecture: str
    device: str
    """Type of the device that holds the weights, ``mixed`` if they are spread over several types."""
    dtype: str
    """Number format of the floating-point weights; if there are several, the one with the largest share."""
    quantization: str
    parameters: int | None
    """None if a server does not report it."""
    weight_bytes: int | None
    attention: str
    has_chat_template: bool
    engine: str = "transformers"
    context_length: int | None = None
    """Longest input in tokens."""
    quantized_share: float | None = None
    """Of all weights, those that are quantized; None if it is not known."""
    adapter: str | None = None
    """Path or hub id of a LoRA adapter."""
    adapter_revision: str | None = None
    """Its commit, or ``sha256:…`` over its files."""
    adapter_merged: bool | None = None
    """Whether it was added to the weights, or is computed alongside them."""

    def to_record(self) -> dict[str, Any]:
        """Plain values for ``model.json``."""
        return asdict(self)


class Tokenizer(Protocol):
    """The interface of a tokenizer that prompts need. Tokenizers of transformers have it."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    chat_template: Any
    """A Jinja template, several by name, or None."""
    added_tokens_decoder: Mapping[int, Any]
    """Added tokens by id: ``str()`` gives the text, ``.special`` says whether it is a control token."""
    all_special_tokens: Sequence[str]

    def __call__(self, text: Any, *, add_special_tokens: bool, **others: Any) -> Mapping[str, Any]:
        """Encode one text or several; ``input_ids`` contains the tokens. Other arguments may be ignored."""

    def decode(self, token_ids: Any, **options: Any) -> Any:
        """Text of tokens; ``skip_special_tokens`` leaves special ones out."""

    def get_vocab(self) -> Mapping[str, int]:
        """Return all tokens as text."""

    def get_chat_template(self) -> str:
        """The template for writing messages."""

    def apply_chat_template(self, conversation: Any, *, tokenize: Any, add_generation_prompt: Any) -> Any:
        """Write messages as the model expects them; a function with ``takes_date`` also takes ``date``."""


def prefix_token_id(tokenizer: Any) -> int | None:
    """The token used for an empty context, as in lm-eval: BOS, otherwise EOS; None without a tokenizer."""
    if tokenizer is None:
        return None
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return found if isinstance(found, int) else None


@dataclass(frozen=True)
class ProbeResult:
    """The chosen path of computation and the reason. ``max_difference`` is in nats, None if nothing was compared."""

    PATHS: ClassVar[Sequence[str] | None] = None
    """The allowed paths; None allows any."""

    path: str
    max_difference: float | None
    reason: str
    layers: int | None = None
    """How many of the model's first layers were compared; None for all of them."""

    def to_builtin(self) -> dict[str, object]:
        """Return it for a record."""
        return asdict(self)

    @classmethod
    def from_builtin(cls, found: object) -> Self | None:
        """Read a record back; None if a field is missing or not valid."""
        if not isinstance(found, Mapping) or not isinstance(path := found.get("path"), str):
            return None
        difference, reason, layers = (found.get(name) for name in ("max_difference", "reason", "layers"))
        numbers = all(
            one is None or (isinstance(one, int | float) and math.isfinite(one)) for one in (difference, layers)
        )
        known = cls.PATHS is None or path in cls.PATHS
        return cls(path, difference, reason, layers) if known and numbers and isinstance(reason, str) else None


@dataclass(frozen=True)
class Extent:
    """The total amount that a model has to score, estimated from its first unit."""

    study_tokens: int
    """Number of computed tokens; shared tokens count once per unit."""
    unit_tokens: int
    """Tokens of one unit after the beginning that its questions share."""
    prefix_tokens: int


class Scorer(Protocol):
    """Log-likelihoods of a plan, batch by batch.

    ``path`` is the way in which batches are computed (the probe chooses it). ``token_limit`` is the batch size after
    out-of-memory errors (None: no limit); a resumed run restores it, to compute the same as an unbroken one.
    """

    path: str
    token_limit: int | None

    def probe(self, docs: Sequence[Sequence[Request]] = (), *, most_tokens: int | None = None) -> ProbeResult:
        """Compare the fast paths with a plain computation on a few docs and choose one.

        ``most_tokens``: about how many tokens the comparison may read.
        """

    def recall(self, found: object) -> ProbeResult | None:
        """Use the record of an earlier probe of the same model; None, without a change, if it does not apply."""

    def plan(
        self,
        docs: Sequence[Sequence[Request]],
        *,
        max_length: int,
        batch_tokens: int,
        prefix_token_id: int | None = None,
    ) -> UnitPlan:
        """Plan a unit as this model can run it; the arguments are those of ``plan_unit``."""

    def path_of(self, plan: UnitPlan) -> str:
        """The path that a plan runs on."""

    def score_batch(self, plan: UnitPlan, at: int) -> list[list[Score]]:
        """Scores of batch ``at``: a list for each of ``plan.batches[at].docs``, in option order.

        The result must not depend on which batches ran before.

        Raises:
            ModelError: not even one option fits into memory.

        """

    def batch_budget(self, extent: Extent, *, kept: Mapping[str, Any] | None = None, spent_s: float = 0.0) -> Budget:
        """Return how many tokens a batch should have; the measurement's effort is in proportion to the study.

        ``kept`` is an earlier budget of the same model on this machine, used if it still fits; ``spent_s`` is the time
        that the probe took.
        """

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """``temperature`` 0 is greedy; ``top_p`` keeps the smallest set of tokens whose probability reaches this value."""

    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A context of token ids and how to continue it; each row of a batch has its own settings.

    An engine without a tokenizer gets ``prompt``, and an empty context. ``temperature`` 0 is greedy; ``top_p`` and
    ``seed`` are only used above 0. ``thinking`` is for replies that begin with thinking; an engine that cannot insert
    tokens ignores it.
    """

    context: Sequence[int]
    max_new_tokens: int = 256
    stop: Sequence[str] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    thinking: ThinkingLimit | None = None
    prompt: Prompt | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """The result of one row.

    ``text`` ends before the stop string; ``token_ids`` are all that were generated, an end token included.
    ``finish_reason``: ``eos``, ``stop`` (a stop string), ``length``, or ``error`` with a line in ``error``.
    ``cut_tokens``: how many tokens at the context's beginning were cut off. ``thinking_cut``: the thinking used up its
    tokens and was ended. ``thinking``: what a server sent apart from the answer. ``is_temporary``: after
    an error, another try may give an answer. A server may not count tokens.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    prompt_tokens: int | None
    new_tokens: int | None
    cut_tokens: int = 0
    error: str | None = None
    thinking_cut: bool = False
    thinking: str | None = None
    is_temporary: bool = False
    is_refused: bool = False
    """A server refused this question; it may still answer others."""


class Generator(Protocol):
    """Replies to many contexts.

    ``row_limit`` is how many rows run at once; an out-of-memory error halves it. ``end_tokens`` end a reply; a job adds
    those of the chat template.
    """

    row_limit: int
    end_tokens: frozenset[int]

    @property
    def path(self) -> str:
        """The decoding path; a resumed unit requests the same one."""

    def keep_prefix(self, asked: Sequence[Asked]) -> None:
        """Compute the shared beginning of all contexts of a unit, once for all later calls."""

    def generate(self, asked: Sequence[Asked]) -> list[Generation]:
        """Return a generation for each, in order; a row's sampling does not depend on the other rows.

        Raises:
            ModelError: a context is empty, or not even one row fits into memory.

        """

    def to_record(self) -> dict[str, Any]:
        """How the model decodes and why, for ``model.json``."""

    def close(self) -> None: ...


class ChatModel(Protocol):
    """One conversation, token by token. Keys and values are kept from one turn to the next.

    A turn is :meth:`read`, then :meth:`next_token` or :meth:`write` as often as wanted, and :meth:`finish`, which
    always runs.
    """

    end_tokens: frozenset[int]

    def read(self, ids: Sequence[int], max_new_tokens: int) -> int:
        """Read a prompt; return how many of its tokens were still cached from earlier turns."""

    def next_token(self, sampling: Sampling) -> int:
        """Choose the next token of the answer.

        Raises:
            ModelError: the model's output is not a number.

        """

    def write(self, token: int) -> None:
        """Add a token to the answer that the model did not choose; uses up no random number."""

    def finish(self, *, keep: bool) -> None:
        """End the answer: remove its tokens from the cache; ``keep`` computes them again in one pass."""

    def seed(self, seed: int) -> None:
        """Restart the random numbers from ``seed``; the cache is kept."""

    def forget(self) -> None:
        """Clear the cache."""

    def state(self) -> Mapping[str, Any]:
        """The state, as builtins, from which the conversation continues as if it had not been interrupted."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""


class Engine(Protocol):
    """One loaded model: its properties, and what scores, generates and chats with it."""

    @property
    def spec(self) -> ModelSpec:
        """The model as the manifest describes it."""

    @property
    def description(self) -> Description:
        """The properties of the loaded model."""

    @property
    def tokenizer(self) -> Any:
        """A :class:`Tokenizer`; None if a server tokenizes, so that prompts stay text or messages."""

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""

    @property
    def effective(self) -> Mapping[str, Any]:
        """Settings that decide the results, read from the loaded model, as builtins for records.

        ``engine``, ``device``, ``dtype``, ``quantization`` and ``threads`` always; an engine adds its own.
        """

    @property
    def device_name(self) -> str | None:
        """Name of the GPU that computes; None for the CPU."""

    @property
    def mapped_weight_bytes(self) -> int | None:
        """Bytes of the weights that are memory-mapped from a file; None if the system does not report it."""

    @property
    def not_finite_reason(self) -> str:
        """The error message for a result that is not a number."""

    def clock(self) -> DeviceClock | None:
        """A timer for the model's device; None if wall time is enough."""

    def scorer(self, warn: Warn = ...) -> Scorer:
        """A new scorer."""

    def generator(self, path: str | None = None, *, found: object = None, warn: Warn = ...) -> Generator:
        """A new generator; ``path`` is the decoding path of a resumed unit (None or unknown: the model's usual one).

        ``found`` is an earlier generator's record for the same model, which saves the trial; it is ignored if it does
        not apply.
        """

    def chat_model(self, *, keeps_keys: bool = True, warn: Warn = ...) -> ChatModel:
        """A new conversation. Without ``keeps_keys``, each turn is computed from the beginning."""

    def measure_speed(self, contexts: Sequence[int], *, rows: int, new_tokens: int, tries: int = 1) -> list[Speed]:
        """Time prefill and decode at each context length."""

    def close(self) -> None: ...


@runtime_checkable
class NextTokenEngine(Protocol):
    """An optional ability of an :class:`Engine`: the whole distribution of the next token."""

    def next_token_logprobs(self, tokens: Sequence[int], positions: Sequence[int]) -> "NDArray[np.float32]":
        """Log-probabilities [positions, vocabulary] in nats of the token after each of ``positions`` in ``tokens``.

        ``tokens`` are read alone in one pass, with nothing before them. ``positions`` are in ascending order.

        Raises:
            ModelError: the tokens do not fit, or the model's output is not a number.

        """


class RemoteEngine(Engine, Protocol):
    """An engine whose calls may cost money."""

    @property
    def changes(self) -> Mapping[str, str]:
        """The parameters that the server does not accept (see ``calls.parameters``)."""

    def pay_with(self, calls: PaidCalls | None, *, workers: int = 1, timeout_s: float = 120.0) -> None:
        """Make all further calls through ``calls``, ``workers`` of them at a time; None ends what runs ahead."""


class EngineModule(Protocol):
    """The functions of a module in the registry. Importing it must not import torch."""

    def open_model(self, spec: ModelSpec, *, threads: int | str = "auto") -> Engine:
        """Load a model as ``spec`` says.

        Raises:
            ModelError: not found, no access, no memory, or the loaded model differs from the request.

        """

    def locate(self, spec: ModelSpec) -> Located:
        """Find a model without loading it; a hub revision becomes a commit.

        Raises:
            ModelError: there is no such model, or it cannot be read.

        """

    def local_path(self, spec: ModelSpec) -> Path | None:
        """The file or folder that an id names, checked but not read; None if the id is a name on the hub.

        Raises:
            ModelError: it is not a model that this engine runs.

        """

    def repository(self, spec: ModelSpec) -> str:
        """The hub repository of an id that is not a :meth:`local_path`."""

    def is_cached(self, spec: ModelSpec, revision: str) -> bool:
        """Whether all files that the model needs are in the cache."""

    def check_cached(self, spec: ModelSpec, folder: Path) -> None:
        """Check a model's files in the cache.

        Raises:
            ModelError: this engine cannot run them.

        """

    def check_repository(self, spec: ModelSpec, commit: str) -> None:
        """Check a repository on the hub before anything is fetched.

        Raises:
            ModelError: this engine cannot run it.

        """

    def devices(self) -> list[str]:
        """Types of the devices that the engine can use here, best first."""

    def clock(self, device: str) -> DeviceClock | None:
        """A timer for a type of device; None if wall time is enough."""

    def import_all(self, spec: ModelSpec) -> None:
        """Import what loading and running ``spec`` needs, so that it is not counted as loading."""

    def warm_up_s(self, device: str) -> float:
        """Initialize the device; return the seconds this took."""

    def gpu_uuid(self) -> str | None:
        """Name of the GPU in use, as NVML reports it; None if there is none."""

    def weight_files(self, located: Located) -> list[Path]:
        """The weight files on this machine; empty if there are none."""

    def wanted_files(self, spec: ModelSpec, repo: RemoteRepo) -> list[RemoteFile]:
        """The files of a repository on the hub that are needed."""

    def ensure_files(self, spec: ModelSpec, located: Located) -> None:
        """Fetch the missing files of a model into the cache.

        Raises:
            ModelError: the hub refuses.

        """

    def check_files(self, spec: ModelSpec, located: Located) -> None:
        """Try a model's files on this machine as far as possible without reading its weights: headers and tokenizer.

        Raises:
            ModelError: loading the model would fail.

        """

    def load_tokenizer(self, spec: ModelSpec, located: Located) -> Any:
        """The :class:`Tokenizer` alone, without the weights.

        Raises:
            ModelError: it cannot be loaded.

        """

    def context_length(self, spec: ModelSpec, located: Located) -> int:
        """Longest input in tokens, from the model's files alone.

        Raises:
            ModelError: they cannot be read.

        """

    def forecast(
        self, spec: ModelSpec, located: Located, *, threads: int | str, unit: Mapping[str, int] | None, rows: int
    ) -> dict[str, Any]:
        """Return sizes and, with a ``unit``, speed and memory of a pass, measured without the model.

        Returns ``shapes`` (``device``, ``dtype``, ``parameters``, ``weight_bytes``, ``layers``, ``max_length``,
        ``cache_token_bytes``, ``device_memory_bytes``, ``memory_by_quantization``, ``remark``: a line on the number
        format), ``speed`` (None if it could not be measured) and ``why``. ``speed`` holds the ``path`` of scoring,
        ``runtime_bytes`` and ``pass_bytes`` (plus ``pass_token_bytes`` for each of its tokens), ``pass_s`` and
        ``token_s`` (``pass_time``), ``head_row_s`` per scored position, ``decode_s`` per step of ``rows`` rows, and
        ``threads``; ``start_s``, ``batch_tokens``, ``quantize_s``, ``read_bytes_s`` and ``hash_bytes_s`` if they are
        known.

        Raises:
            LlmjobsError: not even the sizes can be determined.

        """
