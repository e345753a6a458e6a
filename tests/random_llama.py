"""Random-weight Llamas of any size, with their own byte-level tokenizer."""

from pathlib import Path


def make_llama(folder: Path, *, hidden: int = 64, layers: int = 2, length: int = 1024, spread: float = 0.2) -> Path:
    """Write a Llama to ``folder``; ``spread`` is the standard deviation of its weights."""
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
    torch.manual_seed(0)
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
        initializer_range=spread,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
