"""The starter pair: right German for known English, a function in both directions, splits that keep their promises."""

import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from nmt import starter
from nmt.starter import (
    DETERMINERS,
    NOUNS,
    PREPOSITIONS,
    TENSES,
    VERBS,
    WORDS,
    Clause,
    Nominal,
    Pair,
    Sentence,
    Speaker,
    corpus,
    linked,
    phrase,
    placed,
    predicate,
    pronoun,
    question,
    related,
    statement,
)

STEMS = {
    "the": "d", "this": "dies", "these": "dies", "a": "ein", "an": "ein", "no": "kein", "my": "mein", "his": "sein",
    "her": "ihr", "every": "jed", "which": "welch", "many": "viel", "two": "zwei",
}  # fmt: skip
ADJECTIVES = {one.english: one for one in starter.ADJECTIVES}


def np(text: str, case: str = "nom") -> Nominal:
    """'the old dog' as a nominal; a pronoun or a name is one too."""
    if text in starter.PRONOUNS:
        return pronoun(text, case)
    words = text.split()
    stem = STEMS[words.pop(0)] if words[0] in STEMS else ""
    adjective = ADJECTIVES[words.pop(0)] if words[0] in ADJECTIVES else None
    for noun, plural in product(NOUNS, (False, True)):
        one, _, many = noun.english.partition("/")
        if words == [many or f"{one}s" if plural else one]:
            return phrase(noun, DETERMINERS[stem], adjective, plural, case)
    raise ValueError(text)


def say(
    subject: str | Nominal, verb: str, *objects: str, tense: str = "present", time: str = "", **more: Any
) -> Clause:
    """A clause of words. The verb is its German infinitive; an object is in the accusative if it says nothing else."""
    nominals = tuple(np(text.removeprefix("dat:"), "dat" if text.startswith("dat:") else "acc") for text in objects)
    found = next(one for one in VERBS if one.infinitive == verb)
    clause = Clause(
        np(subject) if isinstance(subject, str) else subject,
        found,
        TENSES[tense],
        nominals,
        time=WORDS[time] if time else None,
    )
    return clause._replace(**more)


def at(preposition: str, text: str) -> Nominal:
    english, german, case, *_ = next(row for row in PREPOSITIONS if row[0] == preposition)
    return placed(starter.Words(english, german), np(text, case))


def not_(clause: Clause) -> Clause:
    return clause._replace(particle=WORDS["not"])


def who_repaired() -> Sentence:
    head = np("the boy")
    inner = say(head._replace(english="", german=""), "reparieren", "the car", tense="past")
    return statement(say(related(head, inner), "sein", predicate=predicate(ADJECTIVES["tired"])))


def that_was_eaten() -> Sentence:
    inner = say("Anna", "essen", tense="past", moved=np("the cake", "acc"))
    fresh = predicate(ADJECTIVES["fresh"], WORDS["very"])
    return statement(say(related(np("the cake"), inner), "sein", tense="past", predicate=fresh))


SAID = {
    "verb second": (
        statement(say("the woman", "sehen", "the dog", time="today", time_first=True)),
        "Today the woman sees the dog.",
        "Heute sieht die Frau den Hund.",
    ),
    "verb second after an object": (
        question(say("the child", "essen", moved=np("which cake", "acc")), np("which cake", "acc")),
        "Which cake does the child eat?",
        "Welchen Kuchen isst das Kind?",
    ),
    "verb first": (
        question(say("he", "lesen", "the book", tense="past")),
        "Did he read the book?",
        "Hat er das Buch gelesen?",
    ),
    "who": (question(say("who", "finden", "the egg", tense="past")), "Who found the egg?", "Wer hat das Ei gefunden?"),
    "where": (
        question(say("the mice", "schlafen"), WORDS["where"]),
        "Where do the mice sleep?",
        "Wo schlafen die Mäuse?",
    ),
    "verb last": (
        linked(say("the queen", "lachen"), WORDS["because"], say("the king", "tragen", "an old coat")),
        "The queen laughs because the king wears an old coat.",
        "Die Königin lacht, weil der König einen alten Mantel trägt.",
    ),
    "clause first": (
        linked(
            say("he", "singen"), WORDS["although"], say("he", "sein", predicate=predicate(ADJECTIVES["tired"])), True
        ),
        "Although he is tired, he sings.",
        "Obwohl er müde ist, singt er.",
    ),
    "conjunction without effect": (
        linked(say("I", "arbeiten"), WORDS["but"], say("they", "schlafen")),
        "I work, but they sleep.",
        "Ich arbeite, aber sie schlafen.",
    ),
    "separable, apart": (
        statement(say("Paul", "an|rufen", "her grandmother")),
        "Paul calls her grandmother.",
        "Paul ruft ihre Großmutter an.",
    ),
    "separable, together": (
        linked(say("she", "wissen"), WORDS["that"], say("Paul", "an|rufen", "I")),
        "She knows that Paul calls me.",
        "Sie weiß, dass Paul mich anruft.",
    ),
    "separable, perfect with sein": (
        statement(say("the children", "auf|stehen", tense="past")),
        "The children got up.",
        "Die Kinder sind aufgestanden.",
    ),
    "participle without ge": (
        statement(say("two men", "reparieren", "clocks", tense="past")),
        "Two men repaired clocks.",
        "Zwei Männer haben Uhren repariert.",
    ),
    "perfect, verb last": (
        linked(
            not_(say("I", "wissen", tense="past")),
            WORDS["whether"],
            say("the witch", "gehen", tense="past", place=at("into", "the forest")),
        ),
        "I did not know whether the witch went into the forest.",
        "Ich wusste nicht, ob die Hexe in den Wald gegangen ist.",
    ),
    "preterite": (statement(say("we", "haben", "a horse", tense="past")), "We had a horse.", "Wir hatten ein Pferd."),
    "preterite plural": (
        statement(say("they", "sein", tense="past", place=at("on", "the roof"))),
        "They were on the roof.",
        "Sie waren auf dem Dach.",
    ),
    "modal": (
        statement(not_(say("the young bear", "finden", "the dark house", tense="can"))),
        "The young bear cannot find the dark house.",
        "Der junge Bär kann das dunkle Haus nicht finden.",
    ),
    "false friends": (
        statement(say("he", "kaufen", "bread", tense="want")),
        "He wants to buy bread.",
        "Er will Brot kaufen.",
    ),
    "future": (statement(say("he", "kaufen", "bread", tense="will")), "He will buy bread.", "Er wird Brot kaufen."),
    "gern": (
        statement(not_(say("I", "zu|hören", "dat:the king", tense="like"))),
        "I do not like to listen to the king.",
        "Ich höre dem König nicht gern zu.",
    ),
    "nicht": (
        statement(not_(say("the man", "sehen", "the bear", time="today"))),
        "The man does not see the bear today.",
        "Der Mann sieht den Bären heute nicht.",
    ),
    "nicht before a place": (
        statement(not_(say("we", "schlafen", place=at("in", "the garden")))),
        "We do not sleep in the garden.",
        "Wir schlafen nicht im Garten.",
    ),
    "kein": (
        statement(not_(say("the girl", "essen", "no egg"))),
        "The girl does not eat an egg.",
        "Das Mädchen isst kein Ei.",
    ),
    "kein, plural": (
        statement(not_(say("he", "haben", "no old hats"))),
        "He does not have any old hats.",
        "Er hat keine alten Hüte.",
    ),
    "kein, mass": (
        statement(not_(say("she", "trinken", "no milk"))),
        "She does not drink any milk.",
        "Sie trinkt keine Milch.",
    ),
    "nie, oft": (
        linked(
            say("I", "lesen", "the card", particle=WORDS["never"]),
            WORDS["and"],
            say("he", "lesen", "the card", particle=WORDS["often"]),
        ),
        "I never read the card and he often reads the card.",
        "Ich lese die Karte nie und er liest oft die Karte.",
    ),
    "two objects": (
        statement(say("I", "geben", "dat:the small boy", "an apple")),
        "I give the small boy an apple.",
        "Ich gebe dem kleinen Jungen einen Apfel.",
    ),
    "pronouns before a time": (
        statement(say("she", "bringen", "dat:we", "soup", time="every day")),
        "She brings us soup every day.",
        "Sie bringt uns jeden Tag Suppe.",
    ),
    "known before, new after a place": (
        statement(say("he", "geben", "dat:his brother", "a book", time="today", place=at("under", "a tree"))),
        "He gives his brother a book under a tree today.",
        "Er gibt heute seinem Bruder unter einem Baum ein Buch.",
    ),
    "dative verb": (
        statement(say("the cat", "folgen", "dat:her sisters", tense="past")),
        "The cat followed her sisters.",
        "Die Katze ist ihren Schwestern gefolgt.",
    ),
    "accusative of place": (
        statement(say("the geese", "laufen", place=at("into", "the old house"))),
        "The geese run into the old house.",
        "Die Gänse laufen ins alte Haus.",
    ),
    "dative of place and direction": (
        statement(say("the goose", "laufen", time="every day", place=at("to", "the big house"))),
        "The goose runs to the big house every day.",
        "Die Gans läuft jeden Tag zum großen Haus.",
    ),
    "dative of place": (
        statement(say("Emma", "sein", place=at("behind", "the houses"))),
        "Emma is behind the houses.",
        "Emma ist hinter den Häusern.",
    ),
    "comparison": (
        question(say("the egg", "sein", predicate=predicate(ADJECTIVES["expensive"], None, np("this bread")))),
        "Is the egg more expensive than this bread?",
        "Ist das Ei teurer als dieses Brot?",
    ),
    "relative clause, its subject": (
        who_repaired(),
        "The boy who repaired the car is tired.",
        "Der Junge, der das Auto repariert hat, ist müde.",
    ),
    "relative clause, its object": (
        that_was_eaten(),
        "The cake that Anna ate was very fresh.",
        "Der Kuchen, den Anna gegessen hat, war sehr frisch.",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_phenomena(name: str) -> None:
    sentence, english, german = SAID[name]
    assert (sentence.english, sentence.german) == (english, german)


# Case by gender, after a determiner that shows them, one that does not, and none: the three ways of adjectives
PARADIGMS = {
    "the old dog": "der alte Hund, den alten Hund, dem alten Hund",
    "an old dog": "ein alter Hund, einen alten Hund, einem alten Hund",
    "no old dogs": "keine alten Hunde, keine alten Hunde, keinen alten Hunden",
    "many old dogs": "viele alte Hunde, viele alte Hunde, vielen alten Hunden",
    "this black cat": "diese schwarze Katze, diese schwarze Katze, dieser schwarzen Katze",
    "my tired cat": "meine müde Katze, meine müde Katze, meiner müden Katze",
    "cold milk": "kalte Milch, kalte Milch, kalter Milch",
    "cold tea": "kalter Tee, kalten Tee, kaltem Tee",
    "the big horse": "das große Pferd, das große Pferd, dem großen Pferd",
    "her expensive book": "ihr teures Buch, ihr teures Buch, ihrem teuren Buch",
    "fresh bread": "frisches Brot, frisches Brot, frischem Brot",
    "two small children": "zwei kleine Kinder, zwei kleine Kinder, zwei kleinen Kindern",
    "every bear": "jeder Bär, jeden Bären, jedem Bären",
    "these boys": "diese Jungen, diese Jungen, diesen Jungen",
    "his geese": "seine Gänse, seine Gänse, seinen Gänsen",
    "old cars": "alte Autos, alte Autos, alten Autos",
    "we": "wir, uns, uns",
    "she": "sie, sie, ihr",
}


@pytest.mark.parametrize("text", PARADIGMS)
def test_case_and_endings(text: str) -> None:
    assert ", ".join(np(text, case).german for case in ("nom", "acc", "dat")) == PARADIGMS[text]


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Pair]]:
    return corpus(train=12_000)


@pytest.fixture(scope="module")
def sample() -> list[Sentence]:
    """What the speaker of seed 1 says: more than the corpus of that seed takes."""
    speaker = Speaker(random.Random(1))
    return [speaker.sentence() for _ in range(30_000)]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def test_sizes(splits: dict[str, list[Pair]]) -> None:
    assert {name: len(pairs) for name, pairs in splits.items()} == {"train": 12_000, "valid": 500, "test": 1_000}
    assert [sum(pair.novel for pair in splits[name]) for name in ("train", "valid", "test")] == [0, 0, 500]
    assert [len(pairs) for pairs in corpus(train=5, valid=0, test=7).values()] == [5, 0, 7]


def test_no_sentence_occurs_twice(splits: dict[str, list[Pair]]) -> None:
    pairs = [pair for split in splits.values() for pair in split]
    assert len({pair.source for pair in pairs}) == len({pair.target for pair in pairs}) == len(pairs)


def test_sentences_are_short_and_written_as_sentences(splits: dict[str, list[Pair]]) -> None:
    for pair in splits["train"]:
        for text in pair[:2]:
            assert re.fullmatch(r"[A-ZÄÖÜ][\wäöüß]*(,? [\wäöüß]+)*[.?]", text), text
            assert len(text.split()) <= starter.LONGEST
        assert pair.source[-1] == pair.target[-1]
    lengths = sorted(len(pair.target.split()) for pair in splits["train"])
    assert 6 <= sum(lengths) / len(lengths) <= 9
    assert sum(length >= 4 for length in lengths) > 0.9 * len(lengths)


def test_many_words_and_all_of_them_in_train(splits: dict[str, list[Pair]]) -> None:
    for side in ("source", "target"):
        known = {word for pair in splits["train"] for word in words(getattr(pair, side))}
        assert len(known) >= 300
        asked = {word for pair in splits["test"] for word in words(getattr(pair, side))}
        assert not asked - known


def test_translation_is_a_function_in_both_directions(sample: list[Sentence]) -> None:
    there: dict[str, str] = {}
    back: dict[str, str] = {}
    for english, german, _ in sample:
        assert there.setdefault(english, german) == german
        assert back.setdefault(german, english) == english
    assert len(there) > 0.9 * len(sample)


def test_novel_sentences_have_a_triple_that_train_and_valid_never_have(
    splits: dict[str, list[Pair]], sample: list[Sentence]
) -> None:
    trees = {sentence.english: sentence for sentence in sample}

    def found(pair: Pair) -> set[tuple[str, str, str]]:
        every = (triple for clause in trees[pair.source].clauses for triple in starter.triples(clause))
        return {(adjective.english, noun.english, verb.infinitive) for adjective, noun, verb, _ in every}

    known = {triple for name in ("train", "valid") for pair in splits[name] for triple in found(pair)}
    novel = [pair for pair in splits["test"] if pair.novel]
    assert all(found(pair) - known for pair in novel)
    # only their combination is new: both words are known together, with other verbs
    pairs = {triple[:2] for triple in known}
    together = [triple[:2] in pairs for pair in novel for triple in found(pair) - known]
    assert sum(together) > 0.98 * len(together)
    for pair in splits["test"]:
        held = [triple for clause in trees[pair.source].clauses for triple in starter.triples(clause)]
        assert pair.novel == any(starter.is_held_out(*triple[:3]) for triple in held)


def test_triples_are_those_of_each_clause() -> None:
    sentence = SAID["relative clause, its object"][0]
    assert not list(starter.triples(sentence.clauses[0]))
    head, inner = np("the big cake"), say("the old king", "essen", tense="past", moved=np("the big cake", "acc"))
    main = say(related(head, inner), "sein", place=at("under", "the small tree"))
    found = [(one.english, two.english, verb.infinitive, *rest) for one, two, verb, *rest in starter.triples(main)]
    assert found == [
        ("big", "cake", "sein", True),
        ("small", "tree", "sein", False),
        ("old", "king", "essen", True),
        ("big", "cake", "essen", True),
    ]


def test_what_would_be_ambiguous_is_not_said(sample: list[Sentence]) -> None:
    clauses = [clause for sentence in sample for clause in sentence.clauses]
    read = [
        clause.subject.person for clause in clauses if clause.verb.past == "read" and clause.tense is TENSES["past"]
    ]
    assert set(read) == {starter.THIRD}  # 'they read' would be lesen and haben gelesen
    texts = [sentence.german for sentence in sample]
    assert not [text for text in texts if re.search(r"\bsie sie\b", text, re.IGNORECASE)]
    assert [text for text in texts if re.search(r"\b(sieht|hat|liebt) sie\b", text, re.IGNORECASE)]


def count_sentences(verbs: Iterable[starter.Verb] = starter.VERBS) -> int:
    """A lower bound: the statements of a subject, a verb in some tense and its objects, no noun twice, and no more.

    No pronoun, negation, time, place, question or second clause is counted. Different choices are different
    sentences, since each shows in English, and the corpus can contain each of them.
    """
    total = 0
    for verb in verbs:
        if verb is starter.BE or verb.follows[:1] in ("c", "d"):  # incomplete without more
            continue
        slots = [(verb.subject, "any"), (verb.dative, "known"), (verb.accusative, "any")]
        options = [
            [(noun, choices_of(noun, pool)) for noun in starter._nouns_of(kinds)] for kinds, pool in slots if kinds
        ]
        tenses = sum(not starter._is_ambiguous(verb, tense, starter.MANY) for tense in starter._tenses_of(verb, "npf"))
        for chosen in product(*options):
            if len({noun for noun, _ in chosen}) == len(chosen):
                total += tenses * math.prod(choices for _, choices in chosen)
    return total


def choices_of(noun: starter.Noun, pool: str) -> int:
    """The phrases there are with a noun."""
    forms = [starter._form(noun, plural) for plural in (False, True)[: 2 if noun.plural else 1]]
    adjectives = 0 if noun.kind == "n" else len(starter._adjectives_of(noun))
    return sum(len(starter._determiners_of(noun.kind, form, pool)) for form in forms) * (1 + adjectives)


@pytest.mark.parametrize("infinitive", ["auf|stehen", "jagen", "kennen"])
def test_count_of_sentences_is_what_enumeration_finds(infinitive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verb = next(one for one in VERBS if one.infinitive == infinitive)
    few = [noun for noun in NOUNS if noun.english in ("king", "queen", "Anna", "dog", "mouse/mice")]
    monkeypatch.setattr(starter, "_nouns_of", lambda kinds: [noun for noun in few if noun.kind in kinds])
    monkeypatch.setattr(starter, "_adjectives_of", lambda noun: [ADJECTIVES["old"]])
    tenses = starter._tenses_of(verb, "npf")

    def phrases(kinds: str, case: str) -> list[Nominal]:
        return [
            phrase(noun, determiner, adjective, plural, case)
            for noun in starter._nouns_of(kinds)
            for plural in ((False, True) if noun.plural else (False,))
            for determiner in starter._determiners_of(noun.kind, starter._form(noun, plural), "any")
            for adjective in ((None,) if noun.kind == "n" else (None, ADJECTIVES["old"]))
        ]

    objects = [(one,) for one in phrases(verb.accusative, "acc")] if verb.accusative else [()]
    clauses = [
        Clause(subject, verb, tense, chosen)
        for subject, chosen, tense in product(phrases(verb.subject, "nom"), objects, tenses)
        if subject.noun not in [one.noun for one in chosen]
    ]
    assert count_sentences([verb]) == len(clauses)
    assert len({statement(clause).english for clause in clauses}) == len(clauses)
    assert len({statement(clause).german for clause in clauses}) == len(clauses)


def test_there_are_more_sentences_than_anyone_can_learn_by_heart() -> None:
    assert count_sentences() >= 10**8


def test_a_seed_says_everything() -> None:
    script = "from nmt.starter import corpus; print(corpus(seed=3, train=200, valid=20, test=40))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(starter.__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert texts == {f"{corpus(seed=3, train=200, valid=20, test=40)}\n"}
    assert corpus(seed=4, train=200, valid=20, test=40) != corpus(seed=3, train=200, valid=20, test=40)


def test_test_does_not_depend_on_the_size_of_train() -> None:
    assert corpus(train=9, valid=5, test=100)["test"] == corpus(train=900, valid=50, test=100)["test"]
