"""``models:`` — which models, how they are loaded."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llmjobs.manifest.engine_names import engine_name, engine_names
from llmjobs.manifest.fields import Address, FileName, GgufSource, ModelId, OneOf, Revision, Section, VariableName, slug
from llmjobs.quantization import METHODS, names
from llmjobs.thinking import DEFAULT_BUDGET

Device = Literal["auto", "cuda", "mps", "cpu"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
KvCache = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
Quantization = Annotated[str, OneOf(names)]
VLLM_ONLY = {"tensor_parallel_size": 1, "gpu_memory_utilization": 0.9, "max_model_len": "auto"}
"""Keys of the vLLM engine with their defaults."""


class ModelSpec(Section):
    """One model and how to load it. The settings that were actually loaded are recorded with the results."""

    id: ModelId
    """Hub id (`meta-llama/Llama-3.2-1B`), a folder, or a bundled demo model (`llmjobs/demo-base`)."""
    name: FileName = Field(default="", validate_default=False)
    """Name of the model in results and reports. Default: derived from the id and the quantization."""
    engine: Annotated[str, OneOf(engine_names)] = "auto"
    """Program that runs the model. `auto` chooses by the id; with `endpoint:` it is `endpoint`."""
    revision: Revision | None = None
    """Branch, tag or commit on the hub. It is resolved to a commit when the run starts, and recorded."""
    device: Device = "auto"
    """`auto` uses the first of cuda, mps, cpu that works."""
    dtype: DType = "auto"
    """Number format. `auto` uses bfloat16 if the hardware supports it, else float16 on a GPU and float32 on a CPU."""
    quantization: Quantization = "none"
    """`8bit` (LLM.int8) or `4bit` (NF4 with double quantization), using bitsandbytes, or `int8` (8-bit weights), using
    torchao, which comes with `llmjobs[torchao]`. On CUDA and CPU only."""
    device_map: Literal["none", "auto"] = "none"
    """`auto` spreads the model over all GPUs of the machine, using accelerate."""
    gpu_layers: Literal["auto"] | Annotated[int, Field(ge=0, le=10_000)] = "auto"
    """llama.cpp: layers that run on the GPU. `auto`: all of them if there is a GPU, none with `device: cpu`."""
    kv_cache: KvCache = "f16"
    """llama.cpp: number format of keys and values. `f32` also turns flash attention off, for exact comparisons."""
    gguf: GgufSource | None = None
    """Where this model's GGUF files are, for the precisions `gguf:…` of a matrix: a repository on the hub
    (`OWNER/NAME-GGUF`), a folder, or a path in which `*` stands for the precision (`files/model-*.gguf`)."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """vLLM: number of GPUs that share each layer."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """vLLM: share of the GPU's memory for weights, keys and values."""
    max_model_len: Literal["auto"] | Annotated[int, Field(ge=16, le=1 << 24)] = "auto"
    """vLLM: longest input and reply together, in tokens. `auto`: the model's own limit."""
    adapter: ModelId | None = None
    """LoRA adapter that is applied to the model: a folder that peft wrote, or a repository on the hub. For transformers
    only; needs `llmjobs[peft]`."""
    adapter_revision: Revision | None = None
    """Branch, tag or commit of the adapter on the hub."""
    merge_adapter: bool = False
    """Add the adapter to the model's weights while loading. If false, it is computed alongside them, as in training."""
    chat_template: bool = False
    """Format prompts with the tokenizer's chat template, for instruct models. With `endpoint:` the default is true: the
    server gets messages."""
    fewshot_as_turns: bool = True
    """With a chat template, send each worked example as a user turn and an assistant turn. If false, send everything as
    one message."""
    system: str | None = None
    """System message for the chat template."""
    thinking: Literal["off", "on"] | Annotated[int, Field(ge=1, le=1 << 20)] = "off"
    """For models that think before they answer. `off` turns thinking off, with the template's own switch or an empty
    thinking block. `on` allows 2048 tokens of thinking; a number sets another limit. Thinking that reaches its limit
    is ended, and the answer has its own tokens; an endpoint is only given the sum of both. Only the text after the
    thinking counts as the answer."""
    trust_remote_code: bool = False
    """Allow Python code from the model's repository to run. Turn this on only if you have read that code."""
    pickle_weights: bool = False
    """Allow weights that are not in safetensors format. Loading them can run code."""
    endpoint: Address | None = None
    """URL of an OpenAI-compatible server that runs the model. `id` (or `model`) is the model's name there."""
    api_key_env: VariableName | None = None
    """Name of the environment variable that contains the API key. Never put the key itself into a manifest."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """``- meta-llama/Llama-3.2-1B`` is short for ``- id: …``; the name is derived."""
        if isinstance(value, str):
            value = {"id": value}
        value = _on_a_server(value) if isinstance(value, dict) else value
        if isinstance(value, dict) and isinstance(value.get("thinking"), bool):  # so YAML reads ``on`` and ``off``
            value = value | {"thinking": "on" if value["thinking"] else "off"}
        if isinstance(value, dict) and isinstance(value.get("id"), str) and value["id"] and not value.get("name"):
            suffix = f"-{value['quantization']}" if value.get("quantization") in METHODS else ""
            if isinstance(adapter := value.get("adapter"), str) and adapter:
                suffix = f"+{slug(adapter, 40)}{suffix}"
            value = value | {"name": slug(value["id"], min(90, 98 - len(suffix))) + suffix}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        method = METHODS.get(self.quantization)
        if method and self.device == "mps" and "mps" not in method.devices:
            raise ValueError(
                f"quantization: {method.name} needs {method.package}, which does not support Apple's GPU; "
                "use device: cpu or quantization: none"
            )
        if self.quantization != "none" and self.dtype == "float16" and self.device == "cpu":
            raise ValueError("float16 does not work on the CPU; use dtype: auto, bfloat16 or float32")
        if self.device_map == "auto" and self.device not in ("auto", "cuda"):
            raise ValueError("device_map: auto spreads a model over GPUs; remove it or use device: cuda")
        if self.endpoint and self.engine not in ("auto", "endpoint"):
            raise ValueError(f"engine: {self.engine} runs a model on this machine; remove it or the endpoint")
        if self.engine == "endpoint" and not self.endpoint:
            raise ValueError("engine: endpoint needs the server's address; add endpoint: http://HOST:PORT/v1")
        self._check_adapter()
        self._check_engine()
        if self.api_key_env and not self.endpoint:
            raise ValueError("api_key_env only applies to endpoints; add endpoint: or remove this key")
        return self

    @property
    def engine_settings(self) -> dict[str, Any]:
        """Settings that only concern the engine, for a unit's declared settings; empty for transformers."""
        if self.endpoint:
            return {"endpoint": self.endpoint}
        engine = engine_name(self.engine, self.id)
        if engine == "llama.cpp":
            return {"gpu_layers_asked": self.gpu_layers, "kv_cache_asked": self.kv_cache}
        if engine == "vllm":
            return {"tensor_parallel_size_asked": self.tensor_parallel_size, "max_model_len_asked": self.max_model_len}
        return {}

    def _check_adapter(self) -> None:
        if not self.adapter:
            if self.adapter_revision or self.merge_adapter:
                raise ValueError("adapter_revision and merge_adapter are for an adapter; add adapter: or remove them")
        elif self.endpoint:
            raise ValueError("adapter only applies to a model on this machine; remove it, or let the server apply it")
        elif (engine := engine_name(self.engine, self.id)) != "transformers":
            raise ValueError(
                f"adapter needs transformers, not {engine}; merge it into the model (peft: merge_and_unload), "
                "convert that and name it, or use the original model with adapter:"
            )

    def _check_engine(self) -> None:
        """Refuse settings of another engine."""
        if self.endpoint:
            fields = ("quantization", "dtype", "device", "device_map", "gpu_layers", "kv_cache", *VLLM_ONLY)
            fixed = [key for key in fields if getattr(self, key) != type(self).model_fields[key].default]
            if fixed:
                raise ValueError(f"{fixed[0]} is set when the server is started; remove it or the endpoint")
            return
        engine = engine_name(self.engine, self.id)
        if engine != "vllm" and any(getattr(self, name) != default for name, default in VLLM_ONLY.items()):
            raise ValueError(f"{', '.join(VLLM_ONLY)} only apply to vLLM; remove them or set engine: vllm")
        if engine == "vllm":
            self._check_vllm()
        if engine == "llama.cpp":
            if self.quantization != "none":
                raise ValueError(
                    "quantization only applies to transformers; a GGUF file is already quantized, so choose"
                    " another file"
                )
            if self.dtype != "auto" or self.device_map != "none":
                raise ValueError(
                    "dtype and device_map only apply to transformers; remove them (llama.cpp has gpu_layers)"
                )
        elif self.gguf is None and (self.gpu_layers != "auto" or self.kv_cache != "f16"):
            raise ValueError("gpu_layers and kv_cache only apply to llama.cpp; remove them or name a GGUF file")

    def _check_vllm(self) -> None:
        if self.quantization != "none":
            raise ValueError(
                "quantization only applies to transformers; vLLM runs a checkpoint as it is stored, so name one"
                " that is quantized"
            )
        if self.device == "mps":
            raise ValueError("vLLM does not support Apple's GPU; use device: cpu, or engine: transformers")
        if self.device_map != "none":
            raise ValueError("device_map only applies to transformers; use tensor_parallel_size")

    @property
    def thinking_tokens(self) -> int:
        """Tokens that a reply may use for thinking, in addition to the answer."""
        return self.thinking if isinstance(self.thinking, int) else DEFAULT_BUDGET if self.thinking == "on" else 0


def _on_a_server(value: dict[str, Any]) -> dict[str, Any]:
    """``model:`` is an alias for the name of a model on a server, whose address may also be given as ``id:``."""
    if "model" in value and isinstance(value.get("id"), str) and value["id"].startswith(("http://", "https://")):
        value = {"endpoint": value["id"], **{key: one for key, one in value.items() if key != "id"}}
    if value.get("endpoint") and "model" in value and "id" not in value:
        value = {("id" if key == "model" else key): one for key, one in value.items()}
    return {"chat_template": True, **value} if value.get("endpoint") else value
