"""The text of tokens as they come is that of all of them at once, whatever the tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from adapt.generation.written import Written, token_ends

TEXTS = ["A red car, and a blue bus.", "naïve café 東京 🚗🚗 don't", "  two  spaces\n"]
SPECIAL = ["<s>", "</s>", "<image>"]


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2, Llama 3, Qwen: the bytes of a letter may be several tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", bos_token="<s>")


def sentences() -> PreTrainedTokenizerFast:
    """As Llama 2: a sign for spaces, the first of which goes, and bytes for rare letters."""
    rare = [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    common = [("▁a", -1.0), ("▁red", -2.0), ("▁car", -2.0), ("s", -3.0), ("▁", -3.0), (",", -3.0)]
    special = [(name, 0.0) for name in SPECIAL]
    made = Tokenizer(models.Unigram([*special, *rare, *common], unk_id=0, byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", bos_token="<s>")


def pieces() -> PreTrainedTokenizerFast:
    """As BERT: pieces of words, and a text that is tidied up after it has been put together."""
    words = ["[UNK]", *SPECIAL, "a", "red", "car", "##s", ",", ".", "n", "'", "t", "do"]
    made = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    made.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", clean_up_tokenization_spaces=True
    )


KINDS = {"bytes": byte_level(), "sentences": sentences(), "pieces": pieces()}


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_as_decoded_at_once(kind, data):
    tokenizer = KINDS[kind]
    tokens = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=24))
    texts = [
        tokenizer.decode(tokens[: n + 1], skip_special_tokens=True) for n in range(len(tokens))
    ]
    assert token_ends(tokenizer, tokens) == [len(text) for text in texts]
    written = Written.by(tokenizer)
    for token in tokens:
        written.add(token)
    written.settle()
    assert written.text == (texts[-1] if texts else "")


@pytest.mark.parametrize("kind", KINDS)
def test_whole_sentences(kind):
    tokenizer = KINDS[kind]
    for text in TEXTS:
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        written = Written.by(tokenizer)
        told = [written.add(token)[0] for token in tokens]
        assert "".join(told) == written.text
        assert written.text == tokenizer.decode(tokens, skip_special_tokens=True)
        written.keep(2)
        assert written.text == tokenizer.decode(tokens[:2], skip_special_tokens=True)
