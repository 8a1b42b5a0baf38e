"""Sentences to tokens: open_clip's tokenizers, or a sentencepiece vocabulary."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import sentencepiece
import torch
from jaxtyping import Int
from torch import Tensor

from toolkit.errors import ConfigError
from toolkit.registry import did_you_mean

Tokenizer = Callable[[Sequence[str]], Int[Tensor, "b l"]]


class SentencePieceTokenizer:
    """A sentencepiece vocabulary: pieces, then the end token, padded with the pad id (0 in vocabularies made here)."""

    def __init__(self, path: str, context_length: int) -> None:
        """`path` of a .model file; sentences longer than `context_length` - 1 pieces are cut, the end token stays."""
        self.path = path
        self.context_length = context_length
        self.processor = sentencepiece.SentencePieceProcessor(model_file=path)
        if self.processor.eos_id() < 0:
            raise ConfigError(
                f"tokenizer {path} has no end token; train it with an eos_id, such as --pad_id=0 --eos_id=2"
            )

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "b l"]:
        """Token ids, int64."""
        pad = max(self.processor.pad_id(), 0)
        tokens = torch.full((len(texts), self.context_length), pad, dtype=torch.int64)
        for row, text in enumerate(texts):
            # One by one: given a list, sentencepiece starts a pool of threads for each call (240 us instead of 10).
            kept = [*self.processor.encode(text)[: self.context_length - 1], self.processor.eos_id()]
            tokens[row, : len(kept)] = torch.tensor(kept)
        return tokens


class OpenClipTokenizer:
    """open_clip's tokenizer of a model name; what pickles is the name."""

    def __init__(self, name: str, context_length: int) -> None:
        """Raises ConfigError when the tokenizer cannot be made (a Hugging Face one without its package or network)."""
        import open_clip

        self.name, self.context_length = name, context_length
        if ":" not in name and open_clip.get_model_config(name) is None:  # open_clip would take its default in silence
            raise ConfigError(
                f"no tokenizer named {name!r}{did_you_mean(name, open_clip.list_models()) or '.'} "
                "Known: open_clip names, paths of sentencepiece .model files"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._tokenize = open_clip.get_tokenizer(name, context_length=context_length)
            except Exception as error:
                raise ConfigError(
                    f"the tokenizer of {name} could not be made ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}); "
                    "install what it asks for, or give the path of a sentencepiece .model as teacher.tokenizer"
                ) from error

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "b l"]:
        """Token ids, int64."""
        return torch.as_tensor(self._tokenize(list(texts)))

    def __reduce__(self) -> tuple[type["OpenClipTokenizer"], tuple[str, int]]:
        """Workers make their own."""
        return type(self), (self.name, self.context_length)


def build_tokenizer(name: str, context_length: int) -> Tokenizer:
    """A tokenizer from an open_clip model name or the path of a sentencepiece `.model`."""
    if name.endswith(".model"):
        if not Path(name).is_file():
            raise ConfigError(f"tokenizer {name} does not exist; correct the path or train one with sentencepiece")
        return SentencePieceTokenizer(name, context_length)
    return OpenClipTokenizer(name, context_length)
