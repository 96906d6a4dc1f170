"""The scores: known answers, what must not change them, and what a test between systems may not say."""

import json
import logging
import math
import random
import subprocess
import sys

import pytest

from nmt import metrics
from nmt.errors import DataError

SENTENCE = "ein Mann mit Hut steht vor dem alten Haus und eine Frau im roten Kleid geht durch den Park"


def corpus(lines: int = 60, seed: int = 1) -> list[str]:
    draw, words = random.Random(seed), SENTENCE.split()
    return [" ".join(draw.choices(words, k=draw.randint(3, 15))).capitalize() + "." for _ in range(lines)]


def damaged(lines: list[str], share: float, seed: int = 2) -> list[str]:
    draw = random.Random(seed)
    return [" ".join("xyz" if draw.random() < share else word for word in line.split()) for line in lines]


REFERENCES = corpus()
GOOD, BAD = damaged(REFERENCES, 0.1), damaged(REFERENCES, 0.5)


def values(report: metrics.Report) -> dict[str, float]:
    return {score.name: score.value for score in report.scores}


def test_identical_text_is_perfect() -> None:
    report = metrics.evaluate(REFERENCES, REFERENCES, bootstrap=0)
    perfect = {"BLEU": 100, "chrF2": 100, "TER": 0, "BLEU lower-cased tokenised": 100}
    assert values(report) == pytest.approx(perfect)
    assert report.length_ratio == 1
    assert [sentence.chrf for sentence in report.worst] == pytest.approx([100] * metrics.SHOWN)


def test_nothing_in_common_is_zero() -> None:
    scores = values(metrics.evaluate(["qqq"] * 5, ["der Hund läuft dort ."] * 5, bootstrap=100))
    assert scores == {"BLEU": 0, "chrF2": 0, "TER": 100, "BLEU lower-cased tokenised": 0}


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        # the example of Papineni et al. 2002, section 2.1: clipped counts
        ("the the the the the the the", "the cat is on the mat", 100 * (2 / 7 * 1 / 12 * 1 / 20 * 1 / 32) ** 0.25),
        ("the cat is on the", "the cat is on the mat", 100 * 2.718281828 ** (1 - 6 / 5)),  # brevity penalty alone
        ("The cat sat on the mat.", "The cat sat on the mat .", 100),  # 13a parts the full stop
    ],
)
def test_bleu_known_answers(hypothesis: str, reference: str, expected: float) -> None:
    assert metrics.bleu([hypothesis], [reference]).value == pytest.approx(expected)


def test_the_quick_scores_are_the_scores_of_the_report() -> None:
    report = values(metrics.evaluate(GOOD, REFERENCES, bootstrap=0))
    assert metrics.bleu(GOOD, REFERENCES).value == report["BLEU"]
    assert metrics.chrf(GOOD, REFERENCES).value == report["chrF2"]


def test_permuting_both_sides_leaves_corpus_scores() -> None:
    order = random.Random(3).sample(range(len(GOOD)), len(GOOD))
    permuted = metrics.evaluate([GOOD[i] for i in order], [REFERENCES[i] for i in order], bootstrap=0)
    assert values(permuted) == pytest.approx(values(metrics.evaluate(GOOD, REFERENCES, bootstrap=0)))


def test_a_few_lines_without_a_match_are_scored_too() -> None:
    found = metrics.evaluate(["b", "c d", "ab", "e", "f"], ["a", "x y", "ab c", "g", "h"])
    assert all(math.isfinite(score.value) for score in found.scores)
    assert found.scores[1].value > 0


def test_intervals_of_few_lines_stay_where_scores_can_be() -> None:
    references = ["the cat sat on the mat today", "a dog ran home", "two birds sing in the big old tree"]
    report = metrics.evaluate(["the cat sat on the mat today", "a dog ran home", "no"], references)
    wide = 0
    for score in report.scores:
        assert score.low is not None
        assert score.high is not None
        assert 0 <= score.low <= score.high
        assert score.high <= 100 or score.name == "TER"
        wide += score.low == 0 or score.high == 100
    assert wide, "some would lie outside"


def test_signatures_say_how_and_intervals_contain_the_value() -> None:
    for score in metrics.evaluate(GOOD, REFERENCES, language="de", bootstrap=200).scores:
        assert "version:" in score.signature
        assert "bs:200" in score.signature
        assert "seed:" in score.signature
        assert score.low is not None
        assert score.high is not None
        assert score.low < score.value < score.high
        assert score.signature in str(score)
        assert f"{score.value:.2f} [" in str(score)
    quick = metrics.bleu(GOOD, REFERENCES)
    assert quick.low is None
    assert "bs:" not in quick.signature
    assert "tok:13a" in quick.signature


def test_only_the_lower_cased_bleu_ignores_case() -> None:
    cased, *_, lowered = metrics.evaluate([line.upper() for line in REFERENCES], REFERENCES, bootstrap=0).scores
    assert cased.value < 5
    assert lowered.value == pytest.approx(100)
    assert "case:mixed" in cased.signature
    assert "case:lc" in lowered.signature
    assert "sacremoses:" in lowered.signature


@pytest.mark.parametrize(
    ("raw", "published"),  # lines of test_2016_flickr.lc.norm.tok.de of multi30k/dataset (there &quot; stands for ")
    [
        (
            'Eine Frau auf einem Boot namens "El Corazon" lässt schwarze Gewichte ins Wasser fallen.',
            'eine frau auf einem boot namens " el corazon " lässt schwarze gewichte ins wasser fallen .',
        ),
        (  # lower-cased first: "Bart." is an abbreviation to Moses, "bart." is not
            "Ein Mann mit ergrauenden Haaren rasiert seinen Bart.",
            "ein mann mit ergrauenden haaren rasiert seinen bart .",
        ),
    ],
)
def test_tokenised_as_multi30k_publishes_it(raw: str, published: str) -> None:
    assert metrics._moses("de")(raw) == published


def test_punctuation_is_normalised_before_the_tokenised_bleu() -> None:
    report = metrics.evaluate(["Er sagt: „Guten Tag“ …"], ['er sagt : "Guten Tag" ...'], language="de", bootstrap=0)
    assert values(report)["BLEU lower-cased tokenised"] == pytest.approx(100)


@pytest.mark.parametrize("language", ["xx", "tlh-KX"])
def test_any_language_is_scored(language: str) -> None:
    lines = ["他们在公园里散步。", "一个男人站着。"]
    report = metrics.evaluate(lines, lines, language=language, bootstrap=0)
    assert values(report)["BLEU lower-cased tokenised"] >= 0
    assert values(report)["chrF2"] == pytest.approx(100)


@pytest.mark.parametrize("language", ["zh", "zh-Hant", "zh_CN", "cmn", "jpn"])
def test_text_without_spaces_is_not_scored_by_spaces(language: str) -> None:
    hypothesis, reference = ["他们在公园里快乐地散步。"], ["他们在公园里慢慢地散步。"]
    assert metrics.bleu(hypothesis, reference, language).value > 40
    assert metrics.bleu(hypothesis, reference).value < 5
    assert list(values(metrics.evaluate(hypothesis, reference, language=language, bootstrap=0))) == ["BLEU", "chrF2"]
    systems = {"one": hypothesis * 2, "other": reference * 2}
    compared = metrics.compare(reference * 2, systems, samples=10, language=language)
    assert [one.metric for one in compared] == ["BLEU", "chrF2"]


def test_buckets_partition_the_sentences() -> None:
    sources = ["", " ", *(("w " * words) for words in range(1, 41))]
    lines = corpus(len(sources))
    buckets = metrics.by_length(lines, lines, sources)
    counts = {"0": 2, "1-5": 5, "6-10": 5, "11-15": 5, "16-20": 5, "21-30": 10, "31+": 10}
    assert {bucket.label: bucket.count for bucket in buckets} == counts
    assert all(bucket.bleu == pytest.approx(100) and bucket.ratio == 1 for bucket in buckets)
    assert [bucket.label for bucket in metrics.by_length(lines[:1], lines[:1], ["a b c"])] == ["1-5"]


def test_sources_without_spaces_have_words_too() -> None:
    sources = ["我今天在市场买苹果。" * times for times in range(1, 5)]
    lines = corpus(len(sources))
    assert [bucket.label for bucket in metrics.by_length(lines, lines, sources)] == ["6-10", "11-15", "16-20", "21-30"]


def test_a_bucket_scores_its_own_sentences() -> None:
    sources = ["short one"] * 30 + ["w " * 12] * 30
    short, long = metrics.by_length([*REFERENCES[:30], *BAD[30:]], REFERENCES, sources)
    assert short.bleu == pytest.approx(100)
    assert long.bleu == metrics.bleu(BAD[30:], REFERENCES[30:]).value


def test_best_and_worst_sentences() -> None:
    hypotheses = list(GOOD)
    hypotheses[7], hypotheses[11] = "", REFERENCES[11]
    report = metrics.evaluate(hypotheses, REFERENCES, sources=GOOD, bootstrap=0)
    worst = report.worst[0]
    assert (worst.number, worst.chrf, worst.hypothesis, worst.source) == (8, 0, "", GOOD[7])
    assert 12 in [sentence.number for sentence in report.best]
    assert [s.chrf for s in report.worst] == sorted(s.chrf for s in report.worst)
    assert [s.chrf for s in report.best] == sorted((s.chrf for s in report.best), reverse=True)


def test_a_report_is_plain_json_and_readable() -> None:
    report = metrics.evaluate(GOOD, REFERENCES, sources=REFERENCES, bootstrap=0)
    plain = report.to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["scores"][0]["name"] == "BLEU"
    assert plain["by_length"][0]["count"] > 0
    assert "BLEU lower-cased tokenised" in str(report)
    assert "11-15" in str(report)
    assert "11-15" not in str(metrics.evaluate(GOOD, REFERENCES, bootstrap=0))


@pytest.mark.parametrize("method", ["bootstrap", "randomisation"])
def test_a_better_system_is_significantly_better(method: metrics.Method) -> None:
    scrambled = [" ".join(random.Random(4).sample(line.split(), len(line.split()))) for line in GOOD]
    comparisons = metrics.compare(REFERENCES, {"scrambled": scrambled, "good": GOOD}, method, samples=200)
    assert [c.metric for c in comparisons] == ["BLEU", "chrF2", "TER"]
    for c in comparisons:
        assert (c.baseline, c.system) == ("scrambled", "good")
        assert c.p_value < 0.05
        assert c.difference == c.value - c.baseline_value
        assert (c.difference < 0) == (c.metric == "TER")
        assert "version:" in c.signature
        assert f"{metrics.METHODS[method]}:200" in c.signature
    assert comparisons[0].value == metrics.bleu(GOOD, REFERENCES).value
    assert json.loads(json.dumps(comparisons[0].to_json()))["p_value"] == comparisons[0].p_value
    assert "good" in str(comparisons[0])
    assert "p = 0.0" in str(comparisons[0])


@pytest.mark.parametrize("method", ["bootstrap", "randomisation"])
def test_no_or_hardly_a_difference_is_not_significant(method: metrics.Method) -> None:
    systems = {"base": GOOD, "same": GOOD, "one line": [*GOOD[:-1], "x"], "case": [line.lower() for line in GOOD]}
    for c in metrics.compare(REFERENCES, systems, method, samples=100):
        if c.system != "case":
            assert c.p_value == 1
        elif c.metric == "TER":  # it ignores case: no difference
            assert (c.difference, c.p_value) == (0, 1)


def test_unequal_and_empty_files_are_refused() -> None:
    with pytest.raises(DataError, match="hypotheses have 999 lines, references 1,000: line i must"):
        metrics.bleu(["a"] * 999, ["a"] * 1000)
    with pytest.raises(DataError, match="sources have 1 lines, references 2"):
        metrics.evaluate(["a", "b"], ["a", "b"], sources=["a"])
    with pytest.raises(DataError, match="the hypotheses of two have 3 lines, references 2"):
        metrics.compare(["a", "b"], {"one": ["a", "b"], "two": ["a", "b", "c"]})
    with pytest.raises(DataError, match="references have 0 lines"):
        metrics.chrf([], [])
    with pytest.raises(DataError, match="two systems or more, 1 given"):
        metrics.compare(["a"], {"one": ["a"]})


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    tokenised = ["das ist ein Satz ."] * 120  # of which sacreBLEU would warn
    with caplog.at_level(logging.WARNING):
        metrics.evaluate(tokenised, tokenised, tokenised, language="xx", bootstrap=10)
        metrics.compare(tokenised, {"a": tokenised, "b": tokenised}, samples=10)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_importing_it_is_light() -> None:
    heavy = {"torch", "matplotlib", "datasets", "sacremoses"}
    code = f"import sys, nmt.metrics; assert not {heavy}.intersection(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
