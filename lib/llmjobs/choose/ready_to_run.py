"""The exact commands that run the chosen candidate, by engine."""

import shlex
from pathlib import Path

from llmjobs.choose.candidates import Candidate
from llmjobs.demo import DEMO_MODELS
from llmjobs.manifest.engine_names import STORES

DEMO_PREFIX = "llmjobs/"
CONFIGS = {
    "8bit": "BitsAndBytesConfig(load_in_8bit=True)",
    "4bit": (
        'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,'
        " bnb_4bit_compute_dtype={dtype})"
    ),
    "int8": "TorchAoConfig(Int8WeightOnlyConfig())",
}
"""Quantization that transformers does while it loads → the configuration that llmjobs measured."""


def commands(one: Candidate, context: int | None = None) -> list[tuple[str, str]]:
    """Return pairs of a title and a command or program; ``context`` is the context length to serve."""
    if not one.id or not one.engine:
        return []
    if one.engine == "endpoint":
        return [("Chat through its server", f"llmjobs chat --endpoint URL --model {shlex.quote(one.id)}")]
    found = [("Chat in the terminal", _chat(one, context))]
    if " + " in one.id:  # a LoRA adapter
        return found
    if one.engine == "llama.cpp":
        found += _llama_cpp(one, context)
    elif one.engine == "vllm":
        found += _vllm(one, context)
    elif one.engine == "transformers":
        found += [("From Python with transformers", _transformers(one))]
    return found


def _chat(one: Candidate, context: int | None) -> str:
    model, _, adapter = one.id.partition(" + ")
    settings = {"adapter": adapter}
    if one.engine == "transformers":
        settings |= {"dtype": one.dtype, "quantization": one.quantization if one.quantization in CONFIGS else ""}
    if one.engine == "vllm":
        settings |= {"engine": "vllm", "dtype": one.dtype}
    if one.engine == "llama.cpp" and one.gpu_layers.isdecimal():
        settings |= {"gpu_layers": one.gpu_layers}
    parts = ["llmjobs", "chat", model]
    parts += [part for name, value in settings.items() if value for part in ("--set", f"models[0].{name}={value}")]
    return shlex.join([*parts, *(["--max-context", str(context)] if context else [])])


def _llama_cpp(one: Candidate, context: int | None) -> list[tuple[str, str]]:
    if one.id.startswith("ollama:"):
        return [("Ollama", shlex.join(["ollama", "run", one.id.removeprefix("ollama:")]))]
    if one.id.startswith((DEMO_PREFIX, *STORES)):
        return []
    path = _gguf_file(one.id)
    if path is None and one.id.startswith(("/", "./", "../", "~")):
        return []
    where = ["-m", str(path)] if path else ["-hf", one.id]
    size = ["--ctx-size", str(context)] if context else []
    layers = ["--n-gpu-layers", one.gpu_layers] if one.gpu_layers.isdecimal() else []
    source = str(path.resolve()) if path else f"hf.co/{one.id}"
    modelfile = [f"FROM {source}"]
    modelfile += [f"PARAMETER num_ctx {context}"] if context else []
    modelfile += [f"PARAMETER num_gpu {one.gpu_layers}"] if layers else []
    name = shlex.quote("".join(c if c.isalnum() or c in "._-" else "-" for c in f"{one.model}-{one.precision}".lower()))
    return [
        ("llama.cpp's server", shlex.join(["llama-server", *where, *size, *layers])),
        (f"Ollama: save this as Modelfile, then: ollama create {name} -f Modelfile", "\n".join(modelfile)),
    ]


def _gguf_file(model: str) -> Path | None:
    """The GGUF file on this machine that an id names: a path, or ``FOLDER:PART OF THE NAME``."""
    path = Path(model).expanduser()
    if path.is_file():
        return path
    folder, _, part = model.rpartition(":")
    place = Path(folder).expanduser()
    if not folder or not place.is_dir():
        return None
    fitting = [file for file in sorted(place.glob("*.gguf")) if part.lower() in file.name.lower()]
    return fitting[0] if len(fitting) == 1 else None


def _vllm(one: Candidate, context: int | None) -> list[tuple[str, str]]:
    model, revision = _place(one)
    parts = ["vllm", "serve", model, *(["--revision", revision] if revision else [])]
    parts += ["--dtype", one.dtype] if one.dtype in ("float32", "float16", "bfloat16") else []
    return [("vLLM's server", shlex.join([*parts, *(["--max-model-len", str(context)] if context else [])]))]


def _place(one: Candidate) -> tuple[str, str]:
    """The folder or hub id of a checkpoint, and its commit on the hub."""
    if one.id.startswith(DEMO_PREFIX) and one.id.removeprefix(DEMO_PREFIX) in DEMO_MODELS:
        return str(DEMO_MODELS[one.id.removeprefix(DEMO_PREFIX)]), ""
    is_commit = len(one.revision) == 40 and not Path(one.id).expanduser().exists()
    return one.id, one.revision if is_commit else ""


def _transformers(one: Candidate) -> str:
    model, revision = _place(one)
    dtype = f"torch.{one.dtype}" if one.dtype in ("float32", "float16", "bfloat16") else '"auto"'
    config = CONFIGS.get(one.quantization, "").format(dtype=dtype)
    kind = config.partition("(")[0]
    at = f", revision={revision!r}" if revision else ""
    lines = ["import torch"] if "torch." in dtype else []
    lines += ["from torchao.quantization import Int8WeightOnlyConfig"] if "Int8WeightOnly" in config else []
    lines += [f"from transformers import AutoModelForCausalLM, AutoTokenizer{f', {kind}' if kind else ''}"]
    settings = f"dtype={dtype}, device_map={one.device or 'auto'!r}"
    settings += f", quantization_config={config}" if config else ""
    return "\n".join(
        [
            *lines,
            "",
            f"tokenizer = AutoTokenizer.from_pretrained({model!r}{at})",
            f"model = AutoModelForCausalLM.from_pretrained({model!r}{at}, {settings})",
            'prompt = tokenizer("The capital of France is", return_tensors="pt").to(model.device)',
            "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40)[0]))",
        ]
    )
