"""What people name as a model is recognised from its files and its config, before anything is fetched or loaded."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llmjobs.engines.transformers.model_files import Checkpoint, check_checkpoint, reads_images
from llmjobs.errors import ModelError
from llmjobs.manifest.models import ModelSpec
from llmjobs.quantization import stored as stored_formats

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}
WHOLE = ("config.json", "tokenizer.json", "model.safetensors")


def found(files: tuple[str, ...] = WHOLE, **contents: Mapping[str, Any]) -> Checkpoint:
    """A repository; ``config`` and others become the JSON files of those names."""
    named = {f"{name}.json": value for name, value in contents.items()}
    return Checkpoint("maker/model", tuple(files), lambda name: named.get(name, {}))


def refused(what: Checkpoint, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        check_checkpoint(ModelSpec(id="maker/model", **options), what)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "architecture", "said"),
    [
        ("bert", "BertForMaskedLM", "an encoder"),
        ("bert", "BertModel", "an encoder"),
        ("roberta", "RobertaForMaskedLM", "an encoder"),
        ("distilbert", "DistilBertForMaskedLM", "an encoder"),
        ("deberta-v2", "DebertaV2ForMaskedLM", "an encoder"),
        ("modernbert", "ModernBertForMaskedLM", "an encoder"),
        ("xlm-roberta", "XLMRobertaModel", "an encoder"),
        ("electra", "ElectraForPreTraining", "an encoder"),
        ("t5", "T5ForConditionalGeneration", "an encoder-decoder"),
        ("mt5", "MT5ForConditionalGeneration", "an encoder-decoder"),
        ("bart", "BartForConditionalGeneration", "an encoder-decoder"),
        ("pegasus", "PegasusForConditionalGeneration", "an encoder-decoder"),
        ("whisper", "WhisperForConditionalGeneration", "a speech model"),
        ("llama", "LlamaForSequenceClassification", "a classifier or reward model"),
        ("clip", "CLIPModel", "not a language model"),
        ("vit", "ViTForImageClassification", "not a language model"),
        ("wav2vec2", "Wav2Vec2ForCTC", "not a language model"),
        ("of-tomorrow", "TomorrowForCausalLM", "does not know; pip install --upgrade transformers"),
        ("", "SomethingForCausalLM", "without model_type"),
    ],
)
def test_what_is_no_decoder_is_named(kind: str, architecture: str, said: str) -> None:
    config = {"model_type": kind, "architectures": [architecture]}
    line = refused(found(config=config))
    assert said in line
    assert " use " in line or "copy" in line
    assert line.startswith("model: maker/model ")


@pytest.mark.parametrize(
    ("kind", "architecture", "more"),
    [
        ("llama", "LlamaForCausalLM", {}),
        ("gpt2", "GPT2LMHeadModel", {}),
        ("gpt2", "GPT2Model", {}),  # its output embedding is its input embedding
        ("mamba", "MambaForCausalLM", {}),
        ("bert", "BertLMHeadModel", {"is_decoder": True}),
        ("bart", "BartForCausalLM", {"is_encoder_decoder": False}),
        ("gemma3", "Gemma3ForConditionalGeneration", {}),
        ("gemma3_text", "Gemma3ForCausalLM", {}),
        ("qwen2_vl", "Qwen2VLForConditionalGeneration", {}),
        ("llava", "LlavaForConditionalGeneration", {}),
        ("mistral3", "Mistral3ForConditionalGeneration", {}),
        ("qwen3_5", "Qwen3_5ForConditionalGeneration", {}),
    ],
)
def test_decoders_pass_those_that_also_read_images_too(kind: str, architecture: str, more: dict[str, Any]) -> None:
    config = {"model_type": kind, "architectures": [architecture], **more}
    check_checkpoint(ModelSpec(id="maker/model"), found(config=config))


def test_a_model_without_output_head() -> None:
    config = {"model_type": "mistral", "architectures": ["MistralModel"], "tie_word_embeddings": False}
    assert "without an output head (MistralModel)" in refused(found(config=config))


def test_which_models_are_loaded_with_their_vision_part() -> None:
    assert [reads_images({"model_type": kind}) for kind in ("qwen2_vl", "llava", "gemma3", "llama")] == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            ("adapter_config.json", "adapter_model.safetensors"),
            "is a LoRA adapter for some/base, not a model",
        ),
        (("README.md", "model-Q4_K_M.gguf"), "contains GGUF files (llama.cpp)"),
        (("model_index.json", "unet/config.json"), "a pipeline of diffusers"),
        (("params.json", "consolidated.00.pth", "tokenizer.model"), "the publisher's original format"),
        (("checkpoint-500/config.json", "checkpoint-500/model.safetensors"), "only in checkpoint-500"),
        (("data/train-00000-of-00001.parquet", "questions.csv"), "it contains data, not a model"),
        (("model.onnx",), "in ONNX format"),
        (("model.safetensors", "tokenizer.json"), "has weights but no config.json"),
        ((), "has no config.json; name the folder that save_pretrained wrote"),
    ],
)
def test_without_a_config(files: tuple[str, ...], said: str) -> None:
    line = refused(found(files, adapter_config={"base_model_name_or_path": "some/base"}))
    assert said.replace("a pipeline", "an image or audio pipeline") in line


def test_an_adapter_beside_its_base_model_is_not_passed_over() -> None:
    line = refused(found((*WHOLE, "adapter_config.json", "adapter_model.safetensors"), config=LLAMA))
    assert "contains a LoRA adapter (adapter_config.json) next to the base model" in line


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, "needs optimum and gptqmodel: pip install optimum gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, "needs gptqmodel: pip install gptqmodel"),
        ({"quant_method": "compressed-tensors"}, "needs compressed-tensors: pip install compressed-tensors"),
        ({"quant_method": "hqq"}, "needs hqq: pip install hqq"),
        ({"quant_method": "of-tomorrow"}, "is quantized by 'of-tomorrow', which transformers does not load"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "needs bitsandbytes: pip install bitsandbytes"),
    ],
)
def test_quantized_checkpoints_name_what_they_need(
    stored: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_formats, "is_installed", lambda _: False)
    assert said in refused(found(config=LLAMA | {"quantization_config": stored}))


def test_quantized_checkpoints_pass_where_their_package_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    monkeypatch.setattr(stored_formats, "is_installed", lambda _: True)
    check_checkpoint(ModelSpec(id="maker/model"), found(config=stored))
    assert "is quantized already (gptq-4bit-channel)" in refused(found(config=stored), quantization="4bit")
    bnb = LLAMA | {"quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}}
    check_checkpoint(ModelSpec(id="maker/model", quantization="4bit"), found(config=bnb))


INDEX = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}


@pytest.mark.parametrize(
    "files",
    [
        ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"),
        ("config.json", "tokenizer.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"),
    ],
)
def test_a_missing_shard_is_named(files: tuple[str, ...]) -> None:
    contents = {"model.safetensors.index": INDEX, "config": LLAMA}
    line = refused(found(files, **contents))
    assert "lacks some of its weights: model-00002-of-00002.safetensors; fetch it again" in line


@pytest.mark.parametrize("weight_map", [["a"], None, {"a": 1}])
def test_an_index_that_maps_nothing_is_named(weight_map: Any) -> None:
    files = ("config.json", "tokenizer.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors")
    contents = {"model.safetensors.index": {"weight_map": weight_map}, "config": LLAMA}
    assert "model.safetensors.index.json, that does not say" in refused(found(files, **contents))


def test_parts_of_weights_without_their_index_are_named() -> None:
    files = ("config.json", "tokenizer.json", *(f"model-0000{n}-of-00002.safetensors" for n in (1, 2)))
    line = refused(found(files, config=LLAMA))
    assert "no model.safetensors.index.json" in line
    assert "pickle_weights" not in line


def test_an_index_of_weights_that_are_not_used_does_not_matter() -> None:
    contents = {"pytorch_model.bin.index": {"weight_map": {"a": "gone.bin"}}, "config": LLAMA}
    check_checkpoint(ModelSpec(id="maker/model"), found((*WHOLE, "pytorch_model.bin.index.json"), **contents))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("config.json", "tokenizer.json", "pytorch_model.bin"), "pickle_weights: true to allow others"),
        (("config.json", "tokenizer.json", "tf_model.h5"), "its weights are in TensorFlow format"),
        (("config.json", "tokenizer.json", "model.gguf"), "its weights are in GGUF (llama.cpp) format"),
        (("config.json", "tokenizer.json"), "has no safetensors weights; use a version"),
        (("config.json", "model.safetensors", "tokenizer_config.json"), "has no tokenizer (tokenizer.json"),
        (("config.json", "model.safetensors"), "has no tokenizer (tokenizer.json"),
    ],
)
def test_what_a_model_lacks(files: tuple[str, ...], said: str) -> None:
    assert said in refused(found(files, config=LLAMA))


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.model", "vocab.json", "qwen.tiktoken", "spiece.model"])
def test_other_tokenizers_pass(name: str) -> None:
    check_checkpoint(ModelSpec(id="maker/model"), found(("config.json", "model.safetensors", name), config=LLAMA))


def test_code_of_a_model_is_asked_for_first() -> None:
    config = {"model_type": "odd", "architectures": ["OddForCausalLM"], "auto_map": {"AutoModelForCausalLM": "odd.Odd"}}
    assert "allow it with trust_remote_code: true" in refused(found(config=config))
    check_checkpoint(ModelSpec(id="maker/model", trust_remote_code=True), found(config=config))


ALLOWED: Callable[[str], bool] = str.isprintable


def test_hostile_names_do_not_reach_the_terminal() -> None:
    line = refused(found(config={"model_type": "t5", "architectures": ["\x1b[31mT5\nX"], "is_encoder_decoder": True}))
    assert ALLOWED(line)
