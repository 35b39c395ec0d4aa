"""Text to token ids and back. A tokenizer folder is a Hugging Face one: `tokenizer.json`, `tokenizer_config.json`."""

import json
from collections.abc import Iterable, Sequence

from etils import epath
from tokenizers import Tokenizer as _Tokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from rstar_jax.trajectory import markers


class Tokenizer:
    """Byte-level BPE whose markers are single tokens.

    A marker always ends a token, so the ids of a concatenation are the concatenation of the ids wherever the pieces
    end or begin with a marker: a tree can carry ids and never tokenises a path again.
    """

    def __init__(self, backend: _Tokenizer):
        self._backend = backend
        missing = [marker for marker in markers.SPECIAL_TOKENS if backend.token_to_id(marker) is None]
        if missing:
            raise ValueError(
                f"the tokenizer has no token for {', '.join(missing)}: expected every marker to be one token"
            )
        self.ids = {marker: backend.token_to_id(marker) for marker in markers.SPECIAL_TOKENS}

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
        if not path.exists():
            raise FileNotFoundError(f"{path}: expected a tokenizer there")
        return cls(_Tokenizer.from_str(path.read_text()))

    def save(self, folder: epath.PathLike) -> None:
        """Writes a folder that `transformers` reads too."""
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self._backend.to_str())
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": markers.PADDING,
            "eos_token": markers.END_OF_TEXT,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config))

    def __len__(self) -> int:
        return self._backend.get_vocab_size()

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`; no token is added."""
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, markers included."""
        return self._backend.decode(list(ids), skip_special_tokens=False)
