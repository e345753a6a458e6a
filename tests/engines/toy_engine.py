"""An engine of one file, as somebody would add it: a model that computes its next byte by arithmetic. No torch."""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from llmjobs.benchmarks.scoring_requests import Score
from llmjobs.engines.batches import plan_unit
from llmjobs.engines.locate import Located
from llmjobs.engines.pass_time import Budget
from llmjobs.engines.protocol import Description, Generation, ProbeResult
from llmjobs.engines.speed import Speed

BOS, EOS, LENGTH = 256, 257, 400
loaded: list[str] = []
"""Models that were opened."""


class Bytes:
    """A tokenizer of one byte a token."""

    bos_token_id, eos_token_id, pad_token_id = BOS, EOS, None
    chat_template = None
    added_tokens_decoder: Mapping[int, Any] = {}
    all_special_tokens: tuple[str, ...] = ()

    def __call__(self, text: Any, *, add_special_tokens: bool, **others: Any) -> dict[str, Any]:
        if not isinstance(text, str):
            return {"input_ids": [self(one, add_special_tokens=add_special_tokens)["input_ids"] for one in text]}
        return {"input_ids": [*([BOS] if add_special_tokens else []), *text.encode()]}

    def decode(self, token_ids: Any, **options: Any) -> str:
        return bytes(token for token in token_ids if token < 256).decode(errors="replace")

    def get_vocab(self) -> dict[str, int]:
        return {chr(token): token for token in range(256)}

    def get_chat_template(self) -> str:
        raise ValueError("there is none")

    def apply_chat_template(self, *messages: Any, **options: Any) -> str:
        raise ValueError("there is none")


def likelihood(tokens: tuple[int, ...]) -> float:
    """Log-probability of the last token after the others."""
    return -(1 + sum((at + 1) * token for at, token in enumerate(tokens)) % 97) / 10


def following(tokens: list[int], random: Random | None) -> int:
    """The next byte: a letter, chosen by what is there, or at random."""
    return 97 + (random.randrange(26) if random else sum(tokens) % 26)


class ToyScorer:
    path, token_limit = "plain", None

    def probe(self, docs: Any = (), *, most_tokens: int | None = None) -> ProbeResult:
        return ProbeResult(self.path, None, "there is one way")

    def plan(self, docs: Any, **settings: Any) -> Any:
        return plan_unit(docs, **settings, sharing=False)

    def path_of(self, plan: Any) -> str:
        return self.path

    def score_batch(self, plan: Any, at: int) -> list[list[Score]]:
        found: dict[int, list[Score]] = {doc: [] for doc in plan.batches[at].docs}
        for option in sorted(plan.batches[at].options):
            read = plan.placed[option].input
            whole = (*read.tokens[: read.first_scored + 1], *read.targets)
            first = read.first_scored + 1
            values = [likelihood(whole[: end + 1]) for end in range(first, len(whole))]
            found[option[0]].append(Score(sum(values), is_greedy=False))
        return list(found.values())

    def recall(self, found: object) -> ProbeResult | None:
        return ProbeResult.from_builtin(found)

    def batch_budget(self, extent: Any, *, kept: Any = None, spent_s: float = 0.0) -> Budget:
        return Budget(256, 256, None, "any will do")

    def close(self) -> None:
        pass


class ToyGenerator:
    path, row_limit, end_tokens = "one by one", 4, frozenset([EOS])

    def keep_prefix(self, asked: Any) -> None:
        pass

    def generate(self, asked: Any) -> list[Generation]:
        return [self.one(row) for row in asked]

    def one(self, row: Any) -> Generation:
        random = Random(row.seed) if row.temperature else None
        said: list[int] = []
        for _ in range(min(row.max_new_tokens, 5)):
            said.append(following([*row.context, *said], random))
        text = bytes(said).decode()
        return Generation(tuple(said), text, "length", len(row.context), len(said))

    def to_record(self) -> dict[str, Any]:
        return {"path": self.path, "reason": "there is one way"}

    def close(self) -> None:
        pass


class ToyChat:
    end_tokens = frozenset([EOS])

    def __init__(self) -> None:
        self.random, self.seen, self.said = Random(0), [], []
        self.ids: list[int] = []

    def read(self, ids: Any, max_new_tokens: int) -> int:
        reused = next((at for at, (a, b) in enumerate(zip(self.seen, ids, strict=False)) if a != b), len(self.seen))
        self.ids, self.said = list(ids), []
        return min(reused, len(ids) - 1)

    def next_token(self, sampling: Any) -> int:
        done = len(self.said) >= 6
        self.said.append(
            EOS if done else following([*self.ids, *self.said], self.random if sampling.temperature else None)
        )
        return self.said[-1]

    def write(self, token: int) -> None:
        self.said.append(token)

    def finish(self, *, keep: bool) -> None:
        self.seen = [*self.ids, *(self.said if keep else ())]

    def seed(self, seed: int) -> None:
        self.random = Random(seed)

    def forget(self) -> None:
        self.seen = []

    def state(self) -> dict[str, Any]:
        version, numbers, gauss = self.random.getstate()
        return {"random": [version, list(numbers), gauss], "seen": list(self.seen)}

    def restore(self, state: Mapping[str, Any]) -> None:
        version, numbers, gauss = state["random"]
        self.random.setstate((version, tuple(numbers), gauss))
        self.seen = list(state["seen"])


class ToyEngine(SimpleNamespace):
    def clock(self) -> None:
        return None

    def scorer(self, warn: Any = None) -> ToyScorer:
        return ToyScorer()

    def generator(self, path: str | None = None, *, found: object = None, warn: Any = None) -> ToyGenerator:
        return ToyGenerator()

    def chat_model(self, *, keeps_keys: bool = True, warn: Any = None) -> ToyChat:
        return ToyChat()

    def measure_speed(self, contexts: Any, *, rows: int, new_tokens: int, tries: int = 1) -> list[Speed]:
        return [Speed(length, 0.001, 1000.0 * length, 100.0 * rows) for length in contexts]

    def close(self) -> None:
        pass


def open_model(spec: Any, *, threads: int | str = "auto") -> ToyEngine:
    loaded.append(spec.name)
    about = Description(
        id=spec.id, revision="v1", architecture="Toy", device="cpu", dtype="float64", quantization="none",
        parameters=1, weight_bytes=8, attention="none", has_chat_template=False, engine="toy", context_length=LENGTH,
    )  # fmt: skip
    effective = {"engine": "toy", "device": "cpu", "dtype": "float64", "quantization": "none", "threads": 1}
    return ToyEngine(
        spec=spec, description=about, tokenizer=Bytes(), max_length=LENGTH, effective=effective,
        mapped_weight_bytes=0, device_name=None, not_finite_reason="the toy computes no numbers",
    )  # fmt: skip


def locate(spec: Any) -> Located:
    return Located(spec.id, "v1", is_local=True)


def local_path(spec: Any) -> Path | None:
    return Path(spec.id)


def repository(spec: Any) -> str:
    return spec.id


def is_cached(spec: Any, revision: str) -> bool:
    return True


def check_cached(spec: Any, folder: Path) -> None:
    pass


def check_repository(spec: Any, commit: str) -> None:
    pass


def devices() -> list[str]:
    return ["cpu"]


def clock(device: str) -> None:
    return None


def import_all(spec: Any) -> None:
    pass


def warm_up_s(device: str) -> float:
    return 0.0


def gpu_uuid() -> str | None:
    return None


def weight_files(located: Located) -> list[Path]:
    return []


def wanted_files(spec: Any, repo: Any) -> list[Any]:
    return []


def ensure_files(spec: Any, located: Located) -> None:
    pass


def check_files(spec: Any, located: Located) -> None:
    pass


def load_tokenizer(spec: Any, located: Located) -> Bytes:
    return Bytes()


def context_length(spec: Any, located: Located) -> int:
    return LENGTH


def forecast(spec: Any, located: Located, *, threads: Any, unit: Any, rows: int) -> dict[str, Any]:
    shapes = {
        "parameters": 1, "weight_bytes": 8, "layers": 1, "hidden": 1, "vocabulary": 258, "max_length": LENGTH,
        "cache_token_bytes": 8, "device": "cpu", "dtype": "float64", "device_memory_bytes": None,
        "memory_by_quantization": {"none": 8}, "remark": None,
    }  # fmt: skip
    speed = {
        "path": "plain", "runtime_bytes": 1 << 20, "pass_bytes": 1 << 10, "pass_s": 1e-6, "token_s": 1e-6,
        "head_row_s": 1e-6, "decode_s": 1e-6, "rows": rows, "threads": 1,
    }  # fmt: skip
    return {"shapes": shapes, "speed": speed, "why": None}
