"""The text of an answer while its tokens come: what a tokenizer makes of all of them so far.

Decoding the whole answer again for each of its tokens takes time that grows with its square. The
`tokenizers` library has a stream that decodes one token more; what it cannot say (half a letter,
tokens without a text), and what it has no part in, is decoded as a whole.
"""

from collections.abc import Callable, Sequence
from typing import Any

Decode = Callable[[Sequence[int]], str]
UNFINISHED = "\ufffd"  # what the first bytes of a letter are decoded as


class Written:
    """The text of one answer.

    Args:
        decode: tokens to text.
        step: what the text becomes longer by with one token more; None where that is not known, and
            an error where it cannot be told any more. By default only `decode` is asked.
    """

    def __init__(self, decode: Decode, step: Callable[[int], str | None] | None = None) -> None:
        self._decode, self._step = decode, step
        self.ids: list[int] = []
        self.text = ""
        """Of the tokens so far, without the first bytes of a letter."""

    @classmethod
    def by(cls, tokenizer: Any) -> "Written":
        """As `tokenizer.decode(..., skip_special_tokens=True)` writes."""
        return cls(lambda ids: tokenizer.decode(ids, skip_special_tokens=True), _stream(tokenizer))

    def add(self, token: int) -> tuple[str, int]:
        """What a token adds to the text, and where it ends: `len(decode(tokens so far))`."""
        self.ids.append(token)
        if self._step is not None:
            try:
                new = self._step(token)
            except Exception:  # the library has no kind of its own for what it cannot go on with
                self._step = new = None
            if new is not None:
                self.text += new
                return new, len(self.text)
        whole = self._decode(self.ids)
        # Bytes are decoded in runs: those of a letter that is not whole spoil the letter before it.
        if whole.endswith(UNFINISHED):
            return "", len(whole)
        new = whole[len(self.text) :] if whole.startswith(self.text) else ""
        self.text = whole
        return new, len(whole)

    def settle(self) -> None:
        """There are no more tokens: what is no letter yet stays as it is."""
        self.text, self._step = self._decode(self.ids), None

    def keep(self, count: int) -> None:
        """Only so many tokens, and no more."""
        del self.ids[count:]
        self.settle()


def _stream(tokenizer: Any) -> Callable[[int], str | None] | None:
    """`step` of a tokenizer that is the library's own; None where Python has a hand in its text."""
    from tokenizers.decoders import DecodeStream
    from transformers import PreTrainedTokenizerFast

    if getattr(type(tokenizer), "_decode", None) is not PreTrainedTokenizerFast._decode:
        return None
    if tokenizer.clean_up_tokenization_spaces:
        return None
    stream, backend = DecodeStream(skip_special_tokens=True), tokenizer.backend_tokenizer
    return lambda token: stream.step(backend, token)


def token_ends(tokenizer: Any, tokens: Sequence[int]) -> list[int]:
    """Where each token ends in the decoded text, in characters: `len(decode(tokens[: t + 1]))`."""
    written = Written.by(tokenizer)
    return [written.add(token)[1] for token in tokens]
