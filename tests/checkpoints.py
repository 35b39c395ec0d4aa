"""A tiny Hugging Face checkpoint with a tokenizer that knows none of the markers."""

import json
import pathlib

import tokenizers

from tests.models import tiny


def write(folder: pathlib.Path) -> pathlib.Path:
    """A Qwen2 with 64 rows, of which its tokenizer uses eleven."""
    tiny.write(folder, "qwen2_untied")
    vocabulary = {word: i for i, word in enumerate(["<|endoftext|>", *"abcdefghij"])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="a"))
    (folder / "tokenizer.json").write_text(backend.to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder
