"""tokenizer.json as the engine needs it: what is encoded comes back, piece by piece, and every id is its own."""

import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from rstar_jax import json_object


def read(path: epath.PathLike) -> str:
    """The text of a tokenizer.json for `tokenizers`, changed in three ways.

    No truncation and no padding, which a call of transformers may have left in it. No blank that is put before a text
    or taken off its beginning (SentencePiece's dummy prefix): ids of pieces are ids of the whole. No number between the
    ids that has no token: `tokenizers` calls new tokens by counting. Raises ValueError that names the file.
    """
    fields = json_object.read(path)
    fields["truncation"] = fields["padding"] = None
    for node in _nodes(fields.get("normalizer")):
        if node.get("type") == "Sequence":
            node["normalizers"] = [own for own in node.get("normalizers", []) if own.get("type") != "Prepend"]
    if (fields.get("normalizer") or {}).get("type") == "Prepend":
        fields["normalizer"] = None
    for part in ("pre_tokenizer", "decoder"):
        for node in _nodes(fields.get(part)):
            if node.get("type") == "Metaspace":
                node["prepend_scheme"] = "never"
                node.pop("add_prefix_space", None)
            if node.get("type") == "Sequence" and part == "decoder":
                node["decoders"] = [own for own in node.get("decoders", []) if own.get("type") != "Strip"]
    _fill(fields)
    return json.dumps(fields)


def _nodes(part: Any) -> Iterator[dict]:
    """A part of the pipeline, and those that it is a sequence of."""
    if isinstance(part, dict):
        yield part
        for name in ("normalizers", "pretokenizers", "decoders"):
            for inner in part.get(name, []):
                yield from _nodes(inner)


def _fill(fields: dict[str, Any]) -> None:
    vocabulary = fields.get("model", {}).get("vocab")
    if not isinstance(vocabulary, dict) or not vocabulary:
        return  # a list numbers itself
    known = set(vocabulary.values())
    known |= {token["id"] for token in fields.get("added_tokens") or [] if token.get("content") not in vocabulary}
    for number in range(max(known)):
        if number not in known:
            vocabulary[f"<|unused {number}|>"] = number
