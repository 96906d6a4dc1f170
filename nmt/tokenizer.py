"""Text to ids and back: SentencePiece (Kudo and Richardson 2018) behind one face.

The ids of the special pieces are fixed here and nowhere else. `encode` adds none of them: what a sentence begins and
ends with is the business of the data and of the search.
"""

from __future__ import annotations

import hashlib
import io
import re
from bisect import bisect, bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, groupby, pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from nmt.errors import CallError, CheckpointError, DataError

PAD, BOS, EOS, UNK = range(4)
NEVER = (PAD, BOS, UNK)  # what a translation does not have
SPACE = "\u2581"  # how SentencePiece writes the space before a word
LETTERS = 16  # of a piece, at most, as SentencePiece makes them
LAST = "\U0010ffff"  # letter of the alphabet
WAYS = 16  # segmentations of a word to draw from
SHORT, PART = 16, 8  # a word of more pieces is cut into such parts, which are drawn one by one
KNOWN = 200_000  # words whose segmentations are kept, of less than PART pieces: longer ones seldom come again
VERSION = f"1 {sentencepiece.__version__}"  # raise it when the same text would give another tokenizer

_SMALLEST = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")
_LARGEST = re.compile(r"value <= (\d+)")


Ids = Sequence[int] | NDArray[np.integer[Any]]


class VocabularyError(DataError):
    """A vocabulary of a size that a text does not allow; `allowed` is the largest or smallest that it does."""

    def __init__(self, message: str, allowed: int) -> None:
        super().__init__(message)
        self.allowed = allowed


class Tokenizer:
    """A trained SentencePiece model.

    Raises CheckpointError where `proto` is no SentencePiece model or has other special ids.
    """

    def __init__(self, proto: bytes, where: str = "tokenizer") -> None:
        self.proto = proto
        self._known: dict[tuple[tuple[int, ...], float], tuple[list[tuple[int, ...]], list[float]]] = {}
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

    def encode(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """The ids of each line; more threads, which are started each time, are for many lines."""
        if threads > 1:
            found: list[list[int]] = self._model.encode([whole(line) for line in lines], num_threads=threads)
            return found
        return [self._model.encode(whole(line)) for line in lines]

    def resample(self, rows: Iterable[Ids], amount: float, seed: int) -> list[list[int]]:
        """Other segmentations of the texts that these ids spell, the same for the same seed.

        Words are drawn one by one: of a unigram model the best segmentations by p^`amount` (Kudo 2018, section 3.2),
        of BPE those that come out when this share of merges is left out (Provilkov et al. 2020). SentencePiece's own
        sampling cannot be repeated in another process, and no run could be resumed.
        """
        words = [self._words(row) for row in rows]
        draws = iter(np.random.default_rng(seed).random(sum(map(len, words))).tolist())
        drawn: list[list[int]] = []
        for row in words:
            line: list[int] = []
            for word in row:
                ways, bounds = self._ways(word, amount)
                line += ways[bisect(bounds, next(draws))] if len(ways) > 1 else word
            drawn.append(line)
        return drawn

    def _words(self, ids: Ids) -> list[tuple[int, ...]]:
        """The ids of each word: a word begins with a piece that begins with a space; what is long is cut."""
        line = [int(i) for i in ids]
        cuts = [at for at, i in enumerate(line) if at == 0 or self._begins[i]]
        words = [tuple(line[start:end]) for start, end in pairwise([*cuts, len(line)])]
        return [part for word in words for part in (self._cut(word) if len(word) > SHORT else (word,))]

    def _cut(self, word: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Parts of a long word, as a line without spaces is: what is spelled in one way only parts the rest."""
        for _, group in groupby(word, lambda i: self._fixed((i,))):
            part = tuple(group)
            yield from (part[at : at + PART] for at in range(0, len(part), PART))

    @cached_property
    def _begins(self) -> list[bool]:
        return [self._model.id_to_piece(i).startswith(SPACE) for i in range(self.vocab)]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {self._model.id_to_piece(i): i for i in range(self.vocab)}

    @cached_property
    def _scores(self) -> list[float]:
        return [self._model.get_score(i) for i in range(self.vocab)]

    @cached_property
    def _merges(self) -> bool:
        """Whether this is a BPE model: its scores are the ranks of the merges."""
        return all(score == int(score) for score in self._scores)

    def _ways(self, word: tuple[int, ...], amount: float) -> tuple[list[tuple[int, ...]], list[float]]:
        """Segmentations of a word and the upper bounds of their shares of 0 to 1, kept for the next time."""
        found = self._known.get((word, amount))
        if found is None:
            ways = self._dropped(word, amount) if self._merges else self._best(word)
            logs = np.array([0.0 if self._merges else amount * sum(self._scores[i] for i in way) for way in ways])
            shares = np.exp(logs - logs.max())
            bounds = (np.cumsum(shares) / shares.sum()).tolist()
            found = ways, [*bounds[:-1], 1.0]
            if len(word) < PART and len(self._known) < KNOWN:
                self._known[word, amount] = found
        return found

    def _fixed(self, word: tuple[int, ...]) -> bool:
        """Whether a word has one spelling only: unknown characters, bytes, and symbols."""
        return any(i <= UNK or self._model.is_byte(i) or i in self._symbols for i in word)

    @cached_property
    def _symbols(self) -> list[int]:
        """The ids of the recipe's symbols: they have the score 0, as has the first merge of BPE, which comes after."""
        zero = [i for i, score in enumerate(self._scores) if score == 0 and i > UNK and not self._model.is_byte(i)]
        return zero[:-1] if self._merges else zero

    def _best(self, word: tuple[int, ...]) -> list[tuple[int, ...]]:
        text = "".join(self.pieces(word))
        if self._fixed(word) or not text.strip(SPACE):
            return [word]
        try:
            found = self._model.nbest_encode(text.replace(SPACE, " "), nbest_size=WAYS)
        except RuntimeError:  # of a model of characters, which others may have been begun from
            raise CallError(
                "training.subword_sampling: a vocabulary of characters has no other segmentations: set it to 0"
            ) from None
        ways = [tuple(way) for way in found]
        if not text.startswith(SPACE):  # a part: the space that SentencePiece puts before it is none of it
            ways = [way[1:] for way in ways if self._model.id_to_piece(way[0]) == SPACE]
        return [way for way in ways if "".join(self.pieces(way)) == text] or [word]

    def _dropped(self, word: tuple[int, ...], share: float) -> list[tuple[int, ...]]:
        text = "".join(self.pieces(word))
        if self._fixed(word):
            return [word]
        random = Random(text)
        return [self._merged(text, share, random) or word for _ in range(WAYS)]

    def _merged(self, text: str, share: float, random: Random) -> tuple[int, ...] | None:
        """BPE with dropout: at each step a share of the merges is out of reach; None for unknown characters."""
        parts = list(text)
        while True:
            whole = [self._ids.get(one + two) for one, two in pairwise(parts)]
            scored = [(self._scores[i], -at) for at, i in enumerate(whole) if i and random.random() >= share]
            if not scored:
                break
            at = -max(scored)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        ids = [self._ids.get(part) for part in parts]
        return None if None in ids else tuple(i for i in ids if i)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids; special pieces leave no trace."""
        return [self._model.decode([i for i in line if i > EOS]) for line in ids]

    def beginning(self, text: str) -> tuple[list[int], list[dict[int, int]]]:
        """The ids of a text that may end within a word, and all spellings of what that word has so far.

        At each place of these there are the pieces that may come, and the place that each leads to; behind the last
        place all may. So `fäh` goes on as `fährt`, `fä hrt` or `f äh ig`. After a space a word has to begin.
        """
        (ids,) = self.encode([text])
        if ids and text[-1].isspace():
            return ids, self._spellings(SPACE)
        pieces = self.pieces(ids)
        words = (at for at, piece in enumerate(pieces) if piece.startswith(SPACE))
        fixed = (at + 1 for at, i in enumerate(ids) if i == UNK or self._model.is_byte(i))
        start = max(len(ids) - LETTERS, *words, *fixed, 0)
        return ids[:start], self._spellings("".join(pieces[start:]))

    def _spellings(self, text: str) -> list[dict[int, int]]:
        """After so many letters of a text, the pieces that may come and how many letters there are then, at most all.

        The last piece may go on behind the text. What leads nowhere is left out.
        """
        ways: list[dict[int, int]] = [{} for _ in text]
        names = list(self._written)
        for at in reversed(range(len(text))):
            longer = names[bisect_left(names, text[at:]) : bisect_left(names, text[at:] + LAST)]
            ways[at] = {self._written[name]: len(text) for name in longer}
            for end in range(at + 1, len(text)):
                piece = self._written.get(text[at:end])
                if piece is not None and ways[end]:
                    ways[at][piece] = end
        return ways

    @cached_property
    def _written(self) -> dict[str, int]:
        """The pieces that write what they are called, in alphabetical order; a byte, `<0x41>`, is none."""
        return {piece: i for piece, i in sorted(self._ids.items()) if i > UNK and not self._model.is_byte(i)}

    def ids(self, pieces: Sequence[str]) -> list[int]:
        """The ids of pieces as `pieces` writes them. Raises CallError for one that the model does not have."""
        for piece in pieces:
            if self._ids.get(piece, UNK) <= UNK:
                raise CallError(f"this model has no piece '{piece}'")
        return [self._ids[piece] for piece in pieces]

    def knows(self, piece: str) -> bool:
        """Whether it is a piece of this model."""
        return piece in self._ids

    def split(self, line: str) -> list[str]:
        """The pieces of a line as written in the model, unknown characters as they stand."""
        return self._model.encode(whole(line), out_type=str)  # type: ignore[no-any-return]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces as written in the model, a leading `▁` standing for a space."""
        return [self._model.id_to_piece(i) for i in ids]


def whole(line: str) -> str:
    """A line without halves of letters (lone surrogates), which JSON can hold and UTF-8 cannot."""
    return line.encode("utf-8", "replace").decode()


def altered(lines: Iterable[str], normalization: str) -> int:
    """How many lines a normalization changes in more than their spaces. What it changes, a model never writes."""
    normalizer = sentencepiece.SentencePieceNormalizer(rule_name=normalization, escape_whitespaces=False)
    return sum(normalizer.normalize(line).split() != line.split() for line in lines)


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

    Raises VocabularyError for a size that the text does not allow, DataError where there is no text.
    """
    out, stopped = io.BytesIO(), list[BaseException]()

    def read() -> Iterator[str]:
        try:
            yield from (line for line in lines if line.strip())
        except BaseException as error:  # SentencePiece would tell of it as a failure of its own
            stopped.append(error)
            raise

    text = read()
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
        if stopped:
            raise stopped[0] from None
        pieces = UNK + 1 + 256 * byte_fallback + len(symbols)  # those that any text needs
        raise _explained(str(error), vocab_size, pieces) from None
    return Tokenizer(out.getvalue())


def _explained(message: str, vocab_size: int, pieces: int) -> DataError:
    given = f"tokenizer.vocab_size: {vocab_size}"
    if found := _LARGEST.search(message):
        what = (
            f"is more than this corpus allows: the largest possible is {found[1]}: "
            f"for instance --set tokenizer.vocab_size={found[1]}"
        )
        return VocabularyError(f"{given} {what}", int(found[1]))
    if found := _SMALLEST.search(message):
        what = (
            f"is less than the characters of this corpus need: the smallest possible is {found[1]}, "
            "or lower tokenizer.character_coverage"
        )
        return VocabularyError(f"{given} {what}", int(found[1]))
    if "sentences_.empty()" in message:
        return DataError("tokenizer: every line of the corpus is longer than 16,384 bytes: cut them into sentences")
    if "(vocab_size) >= (0)" in message:  # a char model
        return VocabularyError(f"{given} is too small for symbols and bytes: the smallest is {pieces}", pieces)
    return DataError(f"tokenizer: SentencePiece could not be trained: {message}")
