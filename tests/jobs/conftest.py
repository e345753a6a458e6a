"""A tiny random Llama with a tokenizer of its own, made once."""

from pathlib import Path

import pytest


def make_llama(folder: Path, *, hidden: int = 64, layers: int = 2, length: int = 1024, seed: int = 0) -> Path:
    """Write a random-weight Llama with a byte-level tokenizer to ``folder``."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate(["<s>", "</s>", *alphabet])}
    merges = [("Ġ", letter) for letter in "ABCD"]
    vocabulary |= {left + right: len(vocabulary) + at for at, (left, right) in enumerate(merges)}
    core = Tokenizer(models.BPE(vocabulary, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 16,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=length,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def mmlu_rows(tmp_path_factory) -> Path:
    """Made-up rows in the original CSV layout, two subjects."""
    folder = tmp_path_factory.mktemp("mmlu")
    for subject in ("astronomy", "business_ethics"):
        for split, count in (("dev", 5), ("test", 30)):
            (folder / split).mkdir(exist_ok=True)
            lines = [
                f'"{subject} {split} {n}: which, ""if any""?",one {n},two {n * 7},three,four,{"ABCD"[n * 7 % 4]}'
                for n in range(count)
            ]
            (folder / split / f"{subject}_{split}.csv").write_text("\n".join(lines) + "\n")
    return folder
