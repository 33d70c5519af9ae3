"""Makes a model that needs no download: a random Llama of two layers that reads and writes bytes.

Run as a script, since what it imports takes seconds and warns: ``python tiny.py FOLDER``. Its words mean nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

LENGTH = 2048
"""Tokens of its context."""
_SPECIAL = ("<s>", "</s>", "<pad>")
_CHAT = (
    "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""An answer stands in a conversation exactly as it was given, as with the templates of most models."""


def make(folder: Path) -> None:
    """Write the model and its tokenizer into a folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*_SPECIAL, *letters])}
    bytes_only = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    start, end, padding = _SPECIAL
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, bos_token=start, eos_token=end, pad_token=padding, chat_template=_CHAT
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config)
    silent = [place for token, place in vocabulary.items() if len(token) > 1 or not token.isascii()]
    with torch.no_grad():
        model.lm_head.weight[silent] = 0.0  # it babbles in letters: bytes that are no text yet are held back
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
