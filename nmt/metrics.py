"""How good is a translation? Scores with their signatures, their uncertainty, and where they come from.

    BLEU_c = 100 · BP · exp(¼ Σₙ log pₙ),  BP = min(1, exp(1 - r/c))     Papineni et al. 2002
    chrF2  = 100 · 5PR / (4P + R), P and R means over character 1- to 6-grams     Popović 2015
    TER    = 100 · edits / reference words (insert, delete, replace, move); lower is better     Snover et al. 2006

All from sacreBLEU (Post 2018), so a number here is a number elsewhere whose signature is the same. Two BLEUs are
reported, because they are two different numbers: `BLEU` is cased, on the text as a reader sees it; `BLEU lower-cased
tokenised` is what papers on Multi30k report: both sides lower-cased, normalised and tokenised in the order of
scripts/task1-tokenize.sh of multi30k/dataset.

Uncertainty: 95 % intervals from bootstrap resampling of the sentences (Koehn 2004), mean ± half the width as sacreBLEU
gives them. Is one system better than another? Paired bootstrap resampling (Koehn 2004), or paired approximate
randomisation (Riezler and Maxwell 2005), which rejects by chance less often. Both draw from sacreBLEU's seed (12345, or
$SACREBLEU_SEED), noted in the signature. A thousand resamples of 10,000 sentences take 0.7 GB for a moment.

Letters: `p` n-gram precision, `r` and `c` the lengths of references and hypotheses, `P` precision, `R` recall.
"""

import contextlib
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.base import Score as SacreScore
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.significance import PairedTest, Result

from nmt import spacing
from nmt.errors import DataError

Method = Literal["bootstrap", "randomisation"]

LENGTHS = (0, 5, 10, 15, 20, 30)  # the last length of each bucket of source words; what is longer is one more bucket
SHOWN = 10  # best and worst sentences in a report
METHODS: dict[Method, str] = {"bootstrap": "bs", "randomisation": "ar"}  # our word -> sacreBLEU's
UNSPACED = {  # languages written without spaces: what sacreBLEU parts them by
    **dict.fromkeys(("zh", "zho", "cmn", "yue"), "zh"),
    **dict.fromkeys(("ja", "jpn", "th", "tha", "lo", "lao", "km", "khm", "my", "mya"), "char"),
}


@dataclass(frozen=True)
class Score:
    """A number, what it was computed with, and its 95 % interval if it was resampled."""

    name: str
    value: float
    signature: str
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.name} {self.value:.2f}{interval} ({self.signature})"


@dataclass(frozen=True)
class Bucket:
    """The sentences whose source has so many words: how many, their BLEU, hypothesis length over reference length."""

    label: str
    count: int
    bleu: float
    ratio: float


@dataclass(frozen=True)
class Sentence:
    """One line of a test set (the first is number 1) with its sentence-level chrF2."""

    number: int
    source: str | None
    hypothesis: str
    reference: str
    chrf: float


@dataclass(frozen=True)
class Report:
    """What `evaluate` found. `best` and `worst` begin with the most extreme; `by_length` is empty without sources."""

    scores: list[Score]
    length_ratio: float
    by_length: list[Bucket]
    best: list[Sentence]
    worst: list[Sentence]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        buckets = [f"{b.label:>12} {b.count:>9,} {b.bleu:>7.2f} {b.ratio:>7.2f}" for b in self.by_length]
        table = [f"{'source words':>12} {'sentences':>9} {'BLEU':>7} {'length':>7}", *buckets] if buckets else []
        return "\n".join([*map(str, self.scores), f"length {self.length_ratio:.3f} of the references", *table])


@dataclass(frozen=True)
class Comparison:
    """One system against the baseline in one metric; `p_value`: how often chance alone would differ as much."""

    metric: str
    baseline: str
    system: str
    baseline_value: float
    value: float
    difference: float
    p_value: float
    signature: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        values = f"{self.baseline} {self.baseline_value:.2f}, {self.system} {self.value:.2f}"
        return f"{self.metric}: {values} ({self.difference:+.2f}, p = {self.p_value:.3f}) ({self.signature})"


def bleu(hypotheses: Sequence[str], references: Sequence[str], language: str = "en") -> Score:
    """The cased BLEU of a corpus, quickly: without an interval. `language` is that of the references."""
    _check(references, {"hypotheses": hypotheses})
    metric = _bleu(language)
    return _score(metric, metric.corpus_score(hypotheses, [references]))


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """The chrF2 of a corpus, quickly: without an interval."""
    _check(references, {"hypotheses": hypotheses})
    metric = CHRF()
    return _score(metric, metric.corpus_score(hypotheses, [references]))


def evaluate(
    hypotheses: Sequence[str],
    references: Sequence[str],
    sources: Sequence[str] | None = None,
    language: str = "en",
    bootstrap: int = 1000,
) -> Report:
    """Everything about one system. `language` is that of the references; `bootstrap` = 0 leaves the intervals out.

    What counts words between spaces, TER and the lower-cased tokenised BLEU, is left out of languages without spaces.
    """
    _check(references, {"hypotheses": hypotheses, "sources": sources})
    cased, *others = _metrics(language)
    result = cased.corpus_score(hypotheses, [references], n_bootstrap=bootstrap)
    scores = [_score(cased, result)]
    for metric in others:
        scores.append(_score(metric, _corpus_score(metric, hypotheses, references, bootstrap)))
    if not unspaced(language):
        scores.append(_lowercased(hypotheses, references, language, bootstrap))
    sentences = _sentences(hypotheses, references, sources)
    # among equals a long sentence says more than a short one; of a few sentences none is both best and worst
    worst = sorted(sentences, key=lambda s: (s.chrf, -len(s.reference)))[: min(SHOWN, -(-len(sentences) // 2))]
    best = sorted((s for s in sentences if s not in worst), key=lambda s: (-s.chrf, -len(s.reference)))[:SHOWN]
    return Report(
        scores=scores,
        length_ratio=float(result.ratio),
        by_length=[] if sources is None else by_length(hypotheses, references, sources, language),
        best=best,
        worst=worst,
    )


def _corpus_score(metric: Metric, hypotheses: Sequence[str], references: Sequence[str], bootstrap: int) -> Any:
    """With an interval where sacreBLEU has one: of a few lines some draws have no match, and it trips over those."""
    with contextlib.suppress(TypeError):
        return metric.corpus_score(hypotheses, [references], n_bootstrap=bootstrap)
    return metric.corpus_score(hypotheses, [references])


def by_length(
    hypotheses: Sequence[str], references: Sequence[str], sources: Sequence[str], language: str = "en"
) -> list[Bucket]:
    """BLEU by the number of source words, after Bahdanau et al. 2015, figure 2."""
    _check(references, {"hypotheses": hypotheses, "sources": sources})
    rows: dict[int, list[int]] = {}
    for row, count in enumerate(spacing.words(sources)):
        rows.setdefault(bisect_left(LENGTHS, count), []).append(row)
    metric, buckets = _bleu(language), []
    for place, members in sorted(rows.items()):
        score = metric.corpus_score([hypotheses[row] for row in members], [[references[row] for row in members]])
        buckets.append(Bucket(_label(place), len(members), float(score.score), float(score.ratio)))
    return buckets


def compare(
    references: Sequence[str],
    systems: Mapping[str, Sequence[str]],
    method: Method = "bootstrap",
    samples: int = 1000,
    language: str = "en",
) -> list[Comparison]:
    """Each further system against the first, the baseline, in BLEU, chrF2 and, where there are spaces, TER (less of
    which is better).

    sacreBLEU counts the samples that differ *more* than the systems do, so that equal systems get p = 1 / (n + 1) of
    n samples, and by randomisation also two that differ in one line. But k lines can be swapped in 2ᵏ ways, of which
    two or more differ as much as the systems: here no p-value is below 2¹⁻ᵏ, and no difference at all is p = 1.
    """
    if len(systems) < 2:
        raise DataError(f"a comparison needs two systems or more, {len(systems)} given: name a baseline and another")
    _check(references, {f"the hypotheses of {name}": lines for name, lines in systems.items()})
    metrics = dict(zip(("BLEU", "chrF2", "TER"), _metrics(language), strict=False))
    signatures, results = PairedTest(list(systems.items()), metrics, [references], METHODS[method], samples)()
    baseline, *others = systems
    comparisons = []
    for place, system in enumerate(others, start=1):
        changed = sum(a != b for a, b in zip(systems[baseline], systems[system], strict=True))
        for metric in metrics:
            before, after = results[metric][0], results[metric][place]
            assert isinstance(before, Result)
            assert isinstance(after, Result)
            assert after.p_value is not None
            old, new = float(before.score), float(after.score)
            p_value = 1.0 if old == new else max(after.p_value, 2.0 ** (1 - changed))
            signature = str(signatures[metric])
            comparisons.append(Comparison(metric, baseline, system, old, new, new - old, p_value, signature))
    return comparisons


def _check(references: Sequence[str], others: Mapping[str, Sequence[str] | None]) -> None:
    if not references:
        raise DataError(
            "references have 0 lines: there is nothing to score against; give references that are not empty"
        )
    for name, lines in others.items():
        if lines is not None and len(lines) != len(references):
            raise DataError(
                f"{name} have {len(lines):,} lines, references {len(references):,}: line i must translate line i; "
                "look for a line lost, added or broken in two, or for the file of another test set"
            )


def unspaced(language: str) -> str | None:
    """What parts a language without spaces, of which the code may name a script or a country: zh-Hant, zh_CN."""
    return UNSPACED.get(re.split("[-_]", language.lower())[0])


def _bleu(language: str) -> BLEU:
    return BLEU(tokenize=unspaced(language) or "13a", force=True)  # force: no warning that text looks tokenised


def _metrics(language: str) -> list[Metric]:
    return [_bleu(language), CHRF(), *([] if unspaced(language) else [TER()])]


def _score(metric: Metric, result: SacreScore) -> Score:
    """A result of sacreBLEU as ours. It keeps the interval in `_mean` and `_ci`, and shows it as rounded text only."""
    mean, half = float(result._mean), float(result._ci)  # of numpy, which JSON does not take
    top = math.inf if result.name == "TER" else 100.0
    low, high = (max(mean - half, 0.0), min(mean + half, top)) if half >= 0 else (None, None)
    return Score(result.name, float(result.score), str(metric.get_signature()), low, high)


def _lowercased(hypotheses: Sequence[str], references: Sequence[str], language: str, bootstrap: int) -> Score:
    moses = _moses(language)
    metric = BLEU(lowercase=True, tokenize="none", force=True)  # lower-cases again, so that the signature says so
    result = metric.corpus_score([moses(x) for x in hypotheses], [[moses(x) for x in references]], bootstrap)
    score = _score(metric, result)
    signature = f"{score.signature}|moses:{language}|sacremoses:{version('sacremoses')}"
    return Score("BLEU lower-cased tokenised", score.value, signature, score.low, score.high)


def _moses(language: str) -> Callable[[str], str]:
    """Lower-case, normalise punctuation, tokenise, by the rules of Moses (Koehn et al. 2007) for this language."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalizer, tokenizer = MosesPunctNormalizer(language), MosesTokenizer(language)

    def tokenize(line: str) -> str:
        return str(tokenizer.tokenize(normalizer.normalize(line.lower()), escape=False, return_str=True))

    return tokenize


def _sentences(hypotheses: Sequence[str], references: Sequence[str], sources: Sequence[str] | None) -> list[Sentence]:
    metric, sentences = CHRF(), []
    for row, (hypothesis, reference) in enumerate(zip(hypotheses, references, strict=True)):
        score = float(metric.sentence_score(hypothesis, [reference]).score)
        source = None if sources is None else sources[row]
        sentences.append(Sentence(row + 1, source, hypothesis, reference, score))
    return sentences


def _label(place: int) -> str:
    if place == 0:
        return "0"
    first = LENGTHS[place - 1] + 1
    return f"{first}-{LENGTHS[place]}" if place < len(LENGTHS) else f"{first}+"
