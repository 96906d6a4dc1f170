"""Text to ids and back: SentencePiece (Kudo and Richardson 2018) behind one face.

The ids of the special pieces are fixed here and nowhere else. `encode` adds none of them: what a sentence begins and
ends with is the business of the data and of the search.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import sentencepiece

from nmt.errors import CheckpointError, DataError

PAD, BOS, EOS, UNK = range(4)
SPACE = "\u2581"  # how SentencePiece writes the space before a word

_SMALLEST = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")
_LARGEST = re.compile(r"value <= (\d+)")


class Tokenizer:
    """A trained SentencePiece model.

    Raises CheckpointError where `proto` is no SentencePiece model or has other special ids.
    """

    def __init__(self, proto: bytes, where: str = "tokenizer") -> None:
        self.proto = proto
        try:
            if not proto:
                raise OSError  # sentencepiece before 0.2.2 would fail at the first use, without an exception
            self._model = sentencepiece.SentencePieceProcessor(model_proto=proto)
        except (RuntimeError, OSError):
            raise CheckpointError(f"{where}: not a SentencePiece model, or truncated: train or copy it again") from None
        ids = (self._model.pad_id(), self._model.bos_id(), self._model.eos_id(), self._model.unk_id())
        if ids != (PAD, BOS, EOS, UNK):
            raise CheckpointError(f"{where}: pad, bos, eos, unk have the ids {ids}, nmt needs {(PAD, BOS, EOS, UNK)}")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        try:
            return cls(path.read_bytes(), str(path))
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None

    @cached_property
    def vocab(self) -> int:
        """The number of pieces V, special ones included."""
        return int(self._model.vocab_size())

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same model, so that what was tokenised with it can be kept."""
        return hashlib.sha256(self.proto).hexdigest()[:16]

    def encode(self, lines: Sequence[str], sampling: float = 0.0, seed: int = 0) -> list[list[int]]:
        """The ids of each line.

        With `sampling` above 0 segmentations are drawn, the same for the same seed: for a unigram model with this
        inverse temperature (Kudo 2018, section 3.2), for BPE with this share of merges left out (Provilkov et al.
        2020).
        """
        if not sampling:
            return self._model.encode(list(lines), num_threads=1)  # type: ignore[no-any-return]
        sentencepiece.set_random_generator_seed(seed % 2**32)
        return self._model.encode(  # type: ignore[no-any-return]
            list(lines), enable_sampling=True, alpha=sampling, nbest_size=-1, num_threads=1
        )

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids; special pieces leave no trace."""
        return [self._model.decode([i for i in line if i > EOS]) for line in ids]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces as written in the model, a leading `▁` standing for a space."""
        return [self._model.id_to_piece(i) for i in ids]


def train(
    lines: Iterable[str],
    model: str = "unigram",
    vocab_size: int = 4000,
    character_coverage: float = 1.0,
    byte_fallback: bool = False,
    normalization: str = "nmt_nfkc",
    symbols: Sequence[str] = (),
    threads: int = 2,
) -> Tokenizer:
    """Train a tokenizer on lines of text. A `char` model takes `vocab_size` as an upper bound.

    Raises DataError for a vocabulary that the text does not allow, with the largest or smallest that it does.
    """
    out = io.BytesIO()
    text = (line for line in lines if line.strip())
    first = next(text, None)
    if first is None:
        raise DataError("tokenizer: no text to train on: every line of the corpus is empty")
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=chain([first], text),
            model_writer=out,
            model_type=model,
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            byte_fallback=byte_fallback,
            normalization_rule_name=normalization,
            user_defined_symbols=list(symbols),
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            num_threads=threads,
            max_sentence_length=16384,  # bytes; longer lines are left out of training the tokenizer
            input_sentence_size=5_000_000,
            shuffle_input_sentence=True,
            minloglevel=3,
        )
    except RuntimeError as error:
        pieces = UNK + 1 + 256 * byte_fallback + len(symbols)  # those that any text needs
        raise DataError(_explain(str(error), vocab_size, pieces)) from None
    return Tokenizer(out.getvalue())


def _explain(message: str, vocab_size: int, pieces: int) -> str:
    if found := _LARGEST.search(message):
        largest = found[1]
        return f"tokenizer.vocab_size: {vocab_size} is more than this corpus allows: the largest possible is {largest}"
    if found := _SMALLEST.search(message):
        return (
            f"tokenizer.vocab_size: {vocab_size} is less than the characters of this corpus need: the smallest "
            f"possible is {found[1]}, or lower tokenizer.character_coverage"
        )
    if "(vocab_size) >= (0)" in message:  # a char model
        return f"tokenizer.vocab_size: {vocab_size} is too small for symbols and bytes: the smallest is {pieces}"
    return f"tokenizer: SentencePiece could not be trained: {message}"
