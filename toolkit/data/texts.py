"""From bytes of a sentence to tokens."""

from collections.abc import Callable, Sequence

from torch import Tensor

from toolkit.data.decode import decode_text

__all__ = ["TokenReader", "decode_text"]


class TokenReader:
    """bytes -> {name: tokens} for each tokenizer; picklable, for data workers."""

    def __init__(self, tokenizers: dict[str, Callable[[Sequence[str]], Tensor]]) -> None:
        """`tokenizers` by the name of the tensor they make, such as `teacher_tokens`."""
        self.tokenizers = tokenizers

    def __call__(self, data: bytes) -> dict[str, Tensor]:
        """Tokens [l] per tokenizer."""
        text = decode_text(data)
        return {name: tokenize([text])[0] for name, tokenize in self.tokenizers.items()}
