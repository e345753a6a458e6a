"""Check the files of a folder or repository before anything is fetched, parsed or loaded."""

import json
import math
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from llmjobs.errors import ModelError, plain_reason
from llmjobs.hub.files import MAX_CONFIG_BYTES, MAX_TEXT_BYTES, PICKLES, SHARD, read_small
from llmjobs.hub.repositories import inspect
from llmjobs.manifest.models import ModelSpec
from llmjobs.quantization import NONE
from llmjobs.quantization.stored import Place, stored_as

# Check a model's files before parsing them: sizes, the config's values, the headers of the weights.

PARSED = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
WEIGHTS = ("*.safetensors", "*.bin")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_HEADER_BYTES = 100_000_000
"""Limit of the safetensors library."""
MAX_LAYERS = 4096
MAX_SIZE = 1 << 26
MAX_POSITIONS = 1 << 40
ALLOWED = (
    (re.compile(r"experts$|^num_experts|^num_labels$"), 1 << 14),
    (re.compile(r"(num|n)_(\w+_)?layers?$|^depth$"), MAX_LAYERS),
    (re.compile(r"position|seq|ctx|length|window|theta|token_id|seed|^max_|chunk", re.IGNORECASE), MAX_POSITIONS),
)
"""Largest allowed numbers of a config by key; :data:`MAX_SIZE` for all others."""
_LAYER_OF = re.compile(r"\.(\d+)\.")
Shapes = dict[str, list[int]]


def check_model_files(who: str, folder: Path) -> None:
    """Refuse files that are too large for their kind, and configs with impossible values.

    Raises:
        ModelError: with the file, its value and what is allowed.

    """
    if not folder.is_dir():
        return
    for path in sorted({path for pattern in (*PARSED, *WEIGHTS) for path in folder.glob(pattern)}):
        found = _stat(who, path)
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{who}: {path} is not a regular file; remove it, or fetch the model again")
        if found.st_size < 1024 and path.suffix != ".json":
            _check_pointer(who, path)
        if path.match("*.safetensors") or path.match("*.bin"):
            continue
        allowed = MAX_CONFIG_BYTES if path.name.endswith("config.json") else MAX_TEXT_BYTES
        if found.st_size > allowed:
            size = f"{found.st_size / 1024**2:,.0f} MiB"
            raise ModelError(f"{who}: {path} has {size}, more than the {allowed >> 20} MiB allowed; use another model")
    config = folder / "config.json"
    if config.is_file():
        check_claims(who, str(config), read_object(who, config))


def _stat(who: str, path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        raise ModelError(f"{who}: {path} is a link to a file that is gone; fetch the model again") from None


def _check_pointer(who: str, path: Path) -> None:
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ModelError(f"{who}: {path} is a git-lfs pointer, not the file itself; run: git lfs pull")


def checked_config(who: str, source: str, revision: str | None, *, trust_remote_code: bool) -> Any:
    """Load a model's config, from a folder or the hub, after checking its numbers.

    Raises:
        ModelError: it has impossible values, or transformers refuses it.

    """
    from transformers import AutoConfig, PretrainedConfig

    plain, _ = PretrainedConfig.get_config_dict(source, revision=revision)
    check_claims(who, "config.json", plain)
    try:
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ImportError):
        raise  # the hub, or a missing package: told by the caller
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise
        raise ModelError(
            f"{who}: config.json is not the config of a model ({plain_reason(error)}); correct it, or fetch the model"
            " again"
        ) from error


def check_layers(who: str, folder: Path, layers: int) -> None:
    """Refuse a config with more ``layers`` than the weight files hold, before the model is built from it.

    Raises:
        ModelError: the files have fewer layers than the config, or a header is damaged.

    """
    numbers = [int(found[1]) for name, _ in _shapes(who, folder) if (found := _LAYER_OF.search(name))]
    if numbers and layers > max(numbers) + 1:
        raise ModelError(
            f"{who}: config.json describes {layers:,} layers, but the weight files contain {max(numbers) + 1:,}; "
            "fetch the model again, or correct config.json"
        )


def check_weights(who: str, folder: Path, parameters: int) -> None:
    """Refuse a config that describes more ``parameters`` than the weight files hold.

    Without this, memory would be allocated for missing weights. Does nothing if there are no safetensors.

    Raises:
        ModelError: the files have fewer parameters than the config, or a header is damaged.

    """
    held = sum(math.prod(shape) for _, shape in _shapes(who, folder))
    if held and parameters > held * 1.01:
        raise ModelError(
            f"{who}: config.json describes {parameters:,} parameters, but the weight files contain {held:,}; "
            "fetch the model again, or correct config.json"
        )


def read_object(who: str, path: Path) -> dict[str, Any]:
    """Read a small JSON file that contains an object.

    Raises:
        ModelError: it cannot be read, is not JSON, or contains something else.

    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{who}: {path} cannot be read: {error.strerror}; {_remedy(error)}") from None
    if raw.startswith(LFS_POINTER):
        raise ModelError(f"{who}: {path} is a git-lfs pointer, not the file itself; run: git lfs pull")
    try:
        found = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        what = "is a web page, not JSON" if raw.lstrip()[:1] == b"<" else "is not JSON"
        raise ModelError(f"{who}: {path} {what}; fetch the model again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{who}: {path} does not contain a JSON object; fetch the model again")
    return found


def _remedy(error: OSError) -> str:
    return "let this user read it: chmod a+r" if isinstance(error, PermissionError) else "fetch the model again"


def check_claims(who: str, where: str, config: Mapping[str, Any]) -> None:
    """Refuse impossible numbers.

    Raises:
        ModelError: with the key, the number and what is allowed.

    """
    for key, value in _numbers(config):
        most = next((allowed for names, allowed in ALLOWED if names.search(key)), MAX_SIZE)
        if isinstance(value, int) and abs(value) > most:
            shown = f"{value:,}" if abs(value) < 10**18 else "a number of over 18 digits"
            raise ModelError(f"{who}: {where}: {key} is {shown}, which no model has (at most {most:,}); correct it")


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield key, value


def _shapes(who: str, folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield name and shape of every tensor, from the headers alone."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            for name, entry in _header(path).items():
                if name != "__metadata__":
                    yield name, [int(size) for size in entry["shape"]]
        except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError, struct.error) as error:
            what = f" ({error})" if type(error) is ValueError else ""
            raise ModelError(f"{who}: {path} is not a safetensors file{what[:200]}; fetch the model again") from None


def _header(path: Path) -> dict[str, Any]:
    """Read the header: eight bytes of length, then JSON (the format's own description, huggingface/safetensors)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("a header that is not an object")
    ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    if max(ends, default=0) > size - 8 - length:
        raise ValueError(f"cut short: {size:,} bytes of {8 + length + max(ends):,}")
    return header


# What a folder or repository contains, from its file names and small JSON files.

TOKENIZER_FILES = re.compile(
    r"(tokenizer|tekken|vocab|spiece|sentencepiece|bpe|source|ice_text|qwen|rwkv_vocab)[\w.-]*"
    r"\.(json|model|txt|tiktoken|bpe|spm)|.*\.tiktoken|.*\.spm|spm\.model"
)
"""Files that contain a vocabulary; ``tokenizer_config.json`` alone does not."""
NO_VOCABULARY = ("ByT5", "Canine", "Perceiver")
"""Tokenizer classes that read bytes and have no vocabulary file."""
OTHER_WEIGHTS = {
    ".gguf": "GGUF (llama.cpp)",
    ".h5": "TensorFlow",
    ".msgpack": "Flax",
    ".onnx": "ONNX",
    ".pth": "the original PyTorch",
    ".npz": "NumPy (MLX)",
    ".ckpt": "Lightning or TensorFlow",
    ".nemo": "NeMo",
    ".mlmodel": "Core ML",
    ".ot": "Rust",
}
SAME_NAME = "the repository that it was made from, often the same name without "


@dataclass(frozen=True)
class Checkpoint:
    """File names (``/`` between folders) of a folder or repository, and how to read a small JSON file of it."""

    place: str
    """The folder's path, or the name on the hub."""
    files: tuple[str, ...]
    read: Callable[[str], Mapping[str, Any]]

    @property
    def root(self) -> list[str]:
        """Names of the files that are not in a subfolder."""
        return [name for name in self.files if "/" not in name]


def check_folder(spec: ModelSpec, folder: Path) -> None:
    """Check a model folder on this machine.

    Raises:
        ModelError: it is not a model that can be evaluated; the message says what it is, and the remedy.

    """
    check_model_files(spec.name, folder)
    names = [path for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    files = tuple(sorted(str(path.relative_to(folder)) for path in names if not path.is_dir()))
    check_checkpoint(spec, Checkpoint(str(folder), files, lambda name: read_object(spec.name, folder / name)))


def check_headers(spec: ModelSpec, folder: Path) -> None:
    """Refuse weight files that are damaged or cut short, from their headers alone.

    Files from the hub have been compared with its sizes.

    Raises:
        ModelError: names the file.

    """
    for _ in _shapes(spec.name, folder):
        pass


def check_repository(spec: ModelSpec, commit: str) -> None:
    """Check a model on the hub at a commit, from its file list and its config; fetches no weights.

    Raises:
        ModelError: as :func:`check_folder`, or the hub does not allow its files to be read.

    """
    from huggingface_hub import constants

    files = _files_on_hub(constants.ENDPOINT, spec.id, commit)
    check_checkpoint(spec, Checkpoint(spec.id, files, lambda name: _read_on_hub(spec, commit, name)))


@lru_cache(maxsize=256)
def _files_on_hub(_endpoint: str, model_id: str, commit: str) -> tuple[str, ...]:
    """Cached, because a commit's list of files never changes."""
    return tuple(file.path for file in inspect("model", model_id, commit).files)


def _read_on_hub(spec: ModelSpec, commit: str, name: str) -> Mapping[str, Any]:
    return read_object(spec.name, read_small("model", spec.id, name, commit))


def check_checkpoint(spec: ModelSpec, found: Checkpoint) -> None:
    """Refuse what cannot be evaluated.

    Raises:
        ModelError: with what it is and the remedy.

    """
    for problem in _problems(spec, found):
        raise ModelError(f"{spec.name}: {found.place} {problem}")


def _problems(spec: ModelSpec, found: Checkpoint) -> Iterator[str]:
    if "config.json" not in found.files:
        yield _without_config(spec, found)
        return
    config = found.read("config.json")
    check_claims(spec.name, "config.json", config)
    yield from _kind_problems(spec, config)
    if "adapter_config.json" in found.files:
        yield (
            "contains a LoRA adapter (adapter_config.json) next to the base model, and only the base model would be "
            "evaluated; move the adapter_* files to a separate folder and name it in adapter:, or remove them"
        )
    yield from _quantization_problems(spec, config)
    yield from _weight_problems(spec, found)
    yield from _tokenizer_problems(spec, found)


def _without_config(spec: ModelSpec, found: Checkpoint) -> str:
    names = found.root
    suffixes = {PurePosixPath(name).suffix for name in names}
    if "adapter_config.json" in names:
        base = str(found.read("adapter_config.json").get("base_model_name_or_path") or "its base model")[:200]
        return f"is a LoRA adapter for {base}, not a model; set id: {base} and adapter: {found.place}"
    if "model_index.json" in names:
        return "is an image or audio pipeline of diffusers, not a language model; use another model"
    if ".gguf" in suffixes:
        return (
            "contains GGUF files (llama.cpp); set engine: llama.cpp and, if there are several, name one of them "
            "(OWNER/NAME:FILE.gguf)"
        )
    if "params.json" in names:
        return (
            "contains the publisher's original format (params.json), which transformers does not read; use the version "
            "for transformers, with a config.json"
        )
    inner = [name.partition("/")[0] for name in found.files if name.endswith("/config.json")]
    if inner:
        shown = ", ".join(inner[-3:])
        if Path(found.place).is_dir():
            return f"has no config.json; but a subfolder has one; name that: {found.place}/{inner[-1]} (found: {shown})"
        return f"has no config.json at its top level, only in {shown}; fetch the repository and name that folder"
    if suffixes & {".parquet", ".csv", ".arrow", ".jsonl"}:
        return "has no config.json; it contains data, not a model; list it under eval.benchmarks"
    if other := next((kind_name for suffix, kind_name in OTHER_WEIGHTS.items() if suffix in suffixes), None):
        return f"has no config.json, and its weights are in {other} format; use the version for transformers"
    if suffixes & {".safetensors", ".bin", ".pt"}:
        return (
            "has weights but no config.json; copy config.json and the tokenizer files from the model that it was "
            "trained from, or name the folder that save_pretrained wrote"
        )
    return "has no config.json; name the folder that save_pretrained wrote"


@lru_cache(maxsize=1)
def _mappings() -> dict[str, dict[str, str]]:
    """Model type → class name, for each kind of model that transformers knows."""
    from transformers.models.auto import modeling_auto as auto

    kinds = {
        "causal": "CAUSAL_LM",
        "masked": "MASKED_LM",
        "seq2seq": "SEQ_TO_SEQ_CAUSAL_LM",
        "speech": "SPEECH_SEQ_2_SEQ",
        "image_text": "IMAGE_TEXT_TO_TEXT",
        "classes": "SEQUENCE_CLASSIFICATION",
    }
    return {kind: dict(getattr(auto, f"MODEL_FOR_{name}_MAPPING_NAMES", {})) for kind, name in kinds.items()}


def reads_images(config: Mapping[str, Any]) -> bool:
    """Whether transformers only has this model with its vision part, which is then loaded but gets no image."""
    kinds, kind = _mappings(), str(config.get("model_type"))
    return kind in kinds["image_text"] and kind not in kinds["causal"]


def _kind_problems(spec: ModelSpec, config: Mapping[str, Any]) -> Iterator[str]:
    own_code = isinstance(config.get("auto_map"), Mapping)
    if own_code and spec.trust_remote_code:
        return
    if isinstance(config.get("quantization"), Mapping) and "quantization_config" not in config:
        yield f"contains weights in MLX's quantized format (Apple); name {SAME_NAME}-4bit or -mlx"
    kind, names = str(config.get("model_type") or ""), _names(config.get("architectures"))
    problem = _type_problem(kind) or _architecture_problem(config, kind, names)
    if problem and own_code and kind not in _mappings()["causal"]:
        yield "needs to run its own Python code; read it first, then allow it with trust_remote_code: true"
    if problem:
        yield problem


def _type_problem(kind: str) -> str | None:
    if not kind:
        return "has a config.json without model_type; copy config.json from the model that it was trained from"
    if kind in _config_types() or any(kind in kinds for kinds in _mappings().values()):
        return None
    return (
        f"has the model type {kind!r}, which the installed transformers does not know; pip install --upgrade "
        "transformers, or use another model"
    )


def _architecture_problem(config: Mapping[str, Any], kind: str, names: list[str]) -> str | None:
    kinds, shown = _mappings(), names[0] if names else kind
    speech = kind in kinds["speech"]
    if config.get("is_encoder_decoder") or (
        (speech or kind in kinds["seq2seq"]) and not _any_ends(names, "ForCausalLM")
    ):
        what = "a speech model" if speech else "an encoder-decoder model"
        return f"is {what} ({shown}); only decoder models can be evaluated, use another model"
    if _any_ends(names, "ForSequenceClassification"):
        return f"is a classifier or reward model ({shown}) without a language-model head; use another model"
    if _is_encoder(config, kind, names):
        return (
            f"is an encoder ({shown}) that reads text in both directions; only decoder models have log-likelihoods, "
            "use another model"
        )
    if names and not config.get("tie_word_embeddings", True) and _has_no_head(names[0]):
        return (
            f"is a model without an output head ({shown}), such as one for embeddings; use the text-generation "
            "model that it was made from"
        )
    if kind not in kinds["causal"] and not reads_images(config):
        return f"is not a language model ({shown}); use a model for text generation"
    return None


@lru_cache(maxsize=1)
def _config_types() -> frozenset[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return frozenset(CONFIG_MAPPING.keys())


def _is_encoder(config: Mapping[str, Any], kind: str, names: list[str]) -> bool:
    """Whether it is a type for masked words; transformers has some as causal models too, if ``is_decoder`` is set."""
    if config.get("is_decoder") or config.get("causal"):
        return False
    kinds = _mappings()
    if kind in kinds["masked"]:
        return kind not in kinds["seq2seq"]
    return any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in names) and kind not in kinds["causal"]


def _has_no_head(architecture: str) -> bool:
    return architecture.endswith("Model") and not architecture.endswith(("LMHeadModel", "HeadsModel"))


def _names(value: object) -> list[str]:
    return [str(name)[:80] for name in value] if isinstance(value, list | tuple) else []


def _quantization_problems(spec: ModelSpec, config: Mapping[str, Any]) -> Iterator[str]:
    stored = stored_as(config)
    given = config.get("quantization_config")
    known = isinstance(given, Mapping) and not {"quant_method", "load_in_4bit", "load_in_8bit"}.isdisjoint(given)
    if given is not None and not known:
        yield (
            "has a quantization_config in its config.json that names no method (quant_method); fetch the model again, "
            "or use the original model"
        )
    if stored is None or spec.engine == "vllm":  # vLLM has its own kernels and reports what it cannot run
        return
    if spec.quantization not in (NONE, stored.same_as):
        yield f"is quantized already ({stored.label}); remove quantization: or use the original model"
    yield from stored.problems(Place.here(spec.device))
    if spec.device == "mps":
        yield f"is quantized by {stored.method}, which does not run on Apple's GPU; use the original model"


def missing_package(who: str, error: ImportError) -> str:
    """Name the package that a model of transformers needs and this environment lacks."""
    text = " ".join(str(error).split())
    found = re.search(r"requires (?:the )?([\w.-]+) library|pip install ([\w.-]+)|No module named '([\w-]+)", text)
    name = next((one for one in found.groups() if one), None) if found else error.name
    if name is None:
        return f"{who}: needs a package that is missing: {text[:200]}; install it, or use another model"
    return f"{who}: needs the {name} package, which is missing; run pip install {name}, or use another model"


def _weight_problems(spec: ModelSpec, found: Checkpoint) -> Iterator[str]:
    names = found.root
    if not any(name.endswith(".safetensors") for name in names):
        pickles = any(PICKLES.fullmatch(name) for name in names)
        if pickles and not spec.pickle_weights:
            yield (
                "has no safetensors weights; set pickle_weights: true to allow others (loading them can run code), "
                "or use another model"
            )
        if not pickles:
            other = next((kind_name for suffix, kind_name in OTHER_WEIGHTS.items() if _any_ends(names, suffix)), None)
            weights = f", and its weights are in {other} format" if other else ""
            yield f"has no safetensors weights{weights}; use a version with model.safetensors"
    missing = _missing_shards(names)
    for name in names:
        if name.endswith((".safetensors.index.json", ".bin.index.json")) and _is_used(name, names):
            shards = found.read(name).get("weight_map")
            if not isinstance(shards, Mapping) or not all(isinstance(one, str) for one in shards.values()):
                yield f"has an index, {name}, that does not say which weight is in which file; fetch it again"
                return
            missing |= {str(one) for one in shards.values()} - set(found.files)
    if not missing and (index := _missing_index(names)):
        yield f"has its weights in several parts but no {index}, which says what each part contains; fetch it again"
    if missing:
        first, more = min(missing), f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        yield f"lacks some of its weights: {first[:100]}{more}; fetch it again, or ask its publisher to upload it"


def _any_ends(names: list[str], suffix: str) -> bool:
    return any(name.endswith(suffix) for name in names)


def _is_used(index: str, names: list[str]) -> bool:
    """Whether an index is used: not beside a single weight file, and not that of pickles beside safetensors."""
    if index.endswith(".bin.index.json"):
        return not _any_ends(names, ".safetensors")
    return index.removesuffix(".index.json") not in names


def _missing_index(names: list[str]) -> str | None:
    """The index that transformers needs if the weights are in parts; None if it exists or is not needed."""
    safe = _any_ends(names, ".safetensors")
    whole, index = (
        ("model.safetensors", "model.safetensors.index.json")
        if safe
        else (
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
        )
    )
    parts = any((m := SHARD.fullmatch(name)) and m[1] in ("model", "pytorch_model") for name in names)
    return index if parts and whole not in names and index not in names else None


def _missing_shards(names: list[str]) -> set[str]:
    """The missing parts: ``model-00002-of-00004.safetensors`` says how many there are."""
    safe = _any_ends(names, ".safetensors")
    found = [m for name in names if (m := SHARD.fullmatch(name)) and (m[4] == "safetensors") == safe]
    sets = {(m[1], m[3], m[4]) for m in found}
    wanted = {
        f"{stem}-{number:05d}-of-{count}.{suffix}"
        for stem, count, suffix in sets
        if stem in ("model", "pytorch_model")
        for number in range(1, min(int(count), 2000) + 1)
    }
    return wanted - set(names)


def _tokenizer_problems(spec: ModelSpec, found: Checkpoint) -> Iterator[str]:
    names = found.root
    if any(TOKENIZER_FILES.fullmatch(name) and name != "tokenizer_config.json" for name in names):
        return
    settings = found.read("tokenizer_config.json") if "tokenizer_config.json" in names else {}
    if str(settings.get("tokenizer_class", "")).startswith(NO_VOCABULARY):
        return
    if spec.trust_remote_code and settings.get("auto_map"):
        return
    yield (
        "has no tokenizer (tokenizer.json, tokenizer.model or vocab.json); copy the tokenizer files from the model "
        "that it was trained from"
    )
