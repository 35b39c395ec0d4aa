"""Text to token ids and back. A tokenizer folder is a Hugging Face one: `tokenizer.json`, `tokenizer_config.json`."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from etils import epath
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as _Tokenizer

from rstar_jax import files, json_object
from rstar_jax.trajectory import markers, tokenizer_json


class Tokenizer:
    """Token ids for trajectories; markers are single tokens, or plain text for a model that has never seen them.

    A marker that is a token always ends a token, so the ids of a concatenation are the concatenation of the ids
    wherever the pieces end or begin with a marker: a tree can carry ids and never tokenises a path again.

    ids: the ids of the markers that are tokens. ends_of_text: the ids with which a model ends what it has to say.
    """

    def __init__(self, backend: _Tokenizer, fields: Mapping[str, Any] | None = None, ends: Collection[int] = ()):
        """fields: of tokenizer_config.json. ends: ids that end a text, besides those of tokens that are known to."""
        backend.no_truncation()
        backend.no_padding()
        self._backend, self._fields = backend, dict(fields or {})
        self._size = 1 + max(backend.get_vocab().values())  # the vocabulary is copied: too slow for every batch
        found = {marker: backend.token_to_id(marker) for marker in markers.SPECIAL_TOKENS}
        self.ids = {marker: token for marker, token in found.items() if token is not None}
        names = [markers.END_OF_TEXT, _content(self._fields.get("eos_token"))]
        named = {backend.token_to_id(end) for end in names if end} - {None}
        self.ends_of_text = tuple(sorted(named | {end for end in ends if 0 <= end < len(self)}))

    @classmethod
    def train(cls, corpus: Iterable[str], vocabulary_size: int) -> "Tokenizer":
        """Learns a tokenizer. Digits stay single tokens; merges may cross spaces, so that a set phrase is one token."""
        backend = _Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=list(markers.SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(corpus, trainer)
        return cls(backend)

    @classmethod
    def load(cls, folder: epath.PathLike) -> "Tokenizer":
        """Reads `tokenizer.json` of a folder."""
        path = epath.Path(folder) / "tokenizer.json"
        if not files.exists(path):
            raise FileNotFoundError(f"{path}: expected a tokenizer there")
        settings = path.parent / "tokenizer_config.json"
        fields = json_object.read(settings) if files.exists(settings) else {}
        try:
            backend = _Tokenizer.from_str(tokenizer_json.read(path))
        except ValueError:
            raise
        except Exception as error:  # tokenizers raises nothing narrower
            raise ValueError(f"{path}: expected a tokenizer: {error}") from error
        return cls(backend, fields, _ends(path.parent))

    @property
    def knows_markers(self) -> bool:
        """Whether every marker is a token."""
        return all(marker in self.ids for marker in markers.SPECIAL_TOKENS)

    def with_markers(self) -> "Tokenizer":
        """This tokenizer with those markers as tokens, behind all others, that are none yet."""
        backend = _Tokenizer.from_str(self._backend.to_str())
        missing = [marker for marker in markers.SPECIAL_TOKENS if marker not in self.ids]
        backend.add_special_tokens([AddedToken(marker, normalized=False) for marker in missing])
        return Tokenizer(backend, self._fields, self.ends_of_text)

    def save(self, folder: epath.PathLike) -> None:
        """Writes a folder that `transformers` reads too.

        `PreTrainedTokenizerFast` reads any. `AutoTokenizer` of transformers 5 splits the text of every model of type
        qwen2 by the rules of that family, whatever the folder says: right for a checkpoint, not for one from `train`.
        """
        folder = epath.Path(folder)
        files.publish(folder / "tokenizer.json", self._backend.to_str())
        fields = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": markers.PADDING,
            "eos_token": markers.END_OF_TEXT,
            **self._fields,
        }
        fields.pop("added_tokens_decoder", None)  # tokenizer.json says it, new tokens included
        files.publish(folder / "tokenizer_config.json", json.dumps(fields, indent=2))
        ends = {"eos_token_id": list(self.ends_of_text)}
        files.publish(folder / "generation_config.json", json.dumps(ends, indent=2))

    def ending(self, marker: str) -> tuple[int, ...]:
        """The ids that end with `marker`: its token; without one, the tokens of its text without the brackets.

        Brackets may be one token with what stands before or behind them.
        """
        return (self.ids[marker],) if marker in self.ids else self.encode(marker.strip("<>"))

    def __eq__(self, other: object) -> bool:
        """Whether both give the same ids to every text."""
        return isinstance(other, Tokenizer) and self._backend.to_str() == other._backend.to_str()

    __hash__ = None

    def __len__(self) -> int:
        """One more than the largest id."""
        return self._size

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`; no token is added."""
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, markers included."""
        return self._backend.decode(list(ids), skip_special_tokens=False)


def _ends(folder: epath.Path) -> set[int]:
    """The ids with which generation_config.json, or config.json, ends a text: a number or several."""
    for name in ("generation_config.json", "config.json"):
        if files.exists(folder / name):
            ends = json_object.read(folder / name).get("eos_token_id")
            if ends is not None:
                return {end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)}
    return set()


def _content(token: str | Mapping[str, Any] | None) -> str | None:
    """The text of a token as tokenizer_config.json gives it: a string, or a dict with its content."""
    return token["content"] if isinstance(token, Mapping) else token
