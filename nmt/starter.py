"""The starter pair: English and German from a synchronous grammar, so that a first model needs no download.

Each part is built in both languages at once: a `Nominal` is 'the old dog' and 'den alten Hund', and a `Clause` of such
parts is read by `english` and by `german`, which put them in order. What a learner of German meets first is all here:
three genders and cases, adjective endings, verb second and verb last, separable verbs, the perfect with haben or sein,
modal verbs, nicht and kein, gern, relative clauses, questions. Up to `question` and `linked` nothing is random: what
is said is chosen by `Speaker` alone.

Translation is a function in both directions, so that a model can come near BLEU 100. Hence no 'you' (du, ihr or Sie),
no 'their' (ihr is also her), no direct object 'them' (sie is also her), and one English past (saw) for the German
perfect (hat gesehen); and where the order of words differs on one side, it differs on the other.

`corpus` holds out combinations: the triples (adjective, noun, verb) of `is_held_out`, such as an old woman who sleeps,
are never in train or valid, and every second sentence of test is `novel`: it has one. All chance comes from
`Random.random()`, the one method whose numbers Python promises to keep, so a seed gives the same corpus everywhere.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate, zip_longest
from typing import NamedTuple, TypeVar
from zlib import crc32

T = TypeVar("T")
THIRD, MANY = 1, 2  # persons; 0 is I. We and they, and all plurals, have one form in both languages

# ---- How often what is said: the one place to make the corpus harder or easier -------------------------------------

SHAPES = {"statement": 46, "question": 22, "linked": 9, "reported": 9, "related": 9}
QUESTIONS = {"whether": 40, "who": 18, "what": 22, "why": 6, "where": 7, "when": 7}
LINKS = {"because": 3, "although": 2, "if": 2, "and": 1, "but": 2}
CHANCES = {
    "simple tense": 0.65, "not": 0.18, "kein": 0.6, "pronoun": 0.2, "plural": 0.3, "plural place": 0.1,
    "adjective": 0.45, "place": 0.3, "time": 0.35, "time first": 0.5, "often": 0.1, "other first": 0.35,
    "same subject": 0.4, "which": 0.5, "somewhere": 0.35, "than": 0.25, "very": 0.3,
}  # fmt: skip
BE_WEIGHT = 8  # how many other verbs 'be' is as frequent as
LIGHT = 0.35  # beside another clause, adjectives, places and times are so much rarer
LONGEST = 10  # words of either side

# ---- The words: in all tables a comma ends a row, - is nothing and _ a space ---------------------------------------
# Kinds of noun: p grown-up, y child, k kin, n name, a animal, f food, b to bake, d drink, t text, c clothes, o other
# things, w what opens, l places, h houses, u to be under, r to be on.

# German, gender (w: masculine, and weak: dem Bären), plural (none: a mass or a name), English (/ an irregular plural)
NOUNS_OF = {
    "p": "Mann m Männer man/men, Frau f Frauen woman/women, König m Könige king, Königin f Königinnen queen, "
    "Riese w Riesen giant, Hexe f Hexen witch, Räuber m Räuber robber",
    "y": "Kind n Kinder child/children, Junge w Jungen boy, Mädchen n Mädchen girl",
    "k": "Bruder m Brüder brother, Schwester f Schwestern sister, Großmutter f Großmütter grandmother",
    "n": "Anna f - Anna, Emma f - Emma, Paul m - Paul, Felix m - Felix",
    "a": "Hund m Hunde dog, Katze f Katzen cat, Pferd n Pferde horse, Maus f Mäuse mouse/mice, "
    "Gans f Gänse goose/geese, Bär w Bären bear",
    "f": "Apfel m Äpfel apple, Ei n Eier egg, Kartoffel f Kartoffeln potato, Suppe f - soup",
    "b": "Kuchen m Kuchen cake, Brot n - bread",
    "d": "Milch f - milk, Tee m - tea",
    "t": "Buch n Bücher book, Brief m Briefe letter, Karte f Karten card",
    "c": "Hut m Hüte hat, Mantel m Mäntel coat, Hemd n Hemden shirt",
    "o": "Auto n Autos car, Uhr f Uhren clock",
    "w": "Tür f Türen door, Fenster n Fenster window",
    "l": "Garten m Gärten garden, Küche f Küchen kitchen, Wald m Wälder forest, Stadt f Städte city",
    "h": "Haus n Häuser house, Schloss n Schlösser castle",
    "u": "Tisch m Tische table, Bett n Betten bed, Baum m Bäume tree",
    "r": "Brücke f Brücken bridge, Dach n Dächer roof",
}

# German (/ the stem of its endings), comparative (none: no 'very' either), English, comparative, kinds (!: it passes,
# #: for no mass)
ADJECTIVE_TABLE = """
groß größer big bigger pykafbtcowlhur#, klein kleiner small smaller pykafbtcowlhur#, alt älter old older pkatcowlhur,
jung jünger young younger pka, schön schöner beautiful more_beautiful pykatcolh,
freundlich freundlicher friendly friendlier pyka, müde/müd müder tired more_tired pyka!, gut besser good better fbdt,
hungrig hungriger hungry hungrier pyka!, traurig trauriger sad sadder pykat!, klug klüger clever cleverer pyka,
faul fauler lazy lazier pyka, teuer/teur teurer expensive more_expensive fbtco, frisch frischer fresh fresher fb,
kalt kälter cold colder fd!, schwarz - black - acow, dunkel/dunkl dunkler dark darker lh"""

# By the kinds of subject, dative and accusative object: infinitive (| after a prefix that separates), third person,
# participle (+: with sein; =: a preterite instead), English (/ an irregular third person), past, and what follows:
# p place, d direction (always), w with, f for, c clause (always); !: without will, !!: so much so that 'can' is odd
VERBS_OF = {
    "pykna - -": "schlafen schläft geschlafen sleep slept p, gehen geht +gegangen go went d, "
    "ein|schlafen schläft +eingeschlafen fall_asleep fell_asleep p!, laufen läuft +gelaufen run ran d, "
    "weg|laufen läuft +weggelaufen run_away ran_away -",
    "pykn - -": "lachen lacht gelacht laugh laughed pw, singen singt gesungen sing sang pw, "
    "arbeiten arbeitet gearbeitet work worked pwf, auf|stehen steht +aufgestanden get_up got_up -, "
    "wissen weiß =wusste know knew c!!, sagen sagt gesagt say said c!!, fragen fragt gefragt ask asked c!!",
    "pykna - pykna": "sehen sieht gesehen see saw p!, suchen sucht gesucht look_for looked_for p, "
    "finden findet gefunden find found p!",
    "pykn - pykna": "lieben liebt geliebt love loved !!",
    "pykn - pykn": "kennen kennt =kannte know knew !!, an|rufen ruft angerufen call called p",
    "a - a": "jagen jagt gejagt chase chased p",
    "pykn - t": "lesen liest gelesen read read p, schreiben schreibt geschrieben write wrote pf",
    "pykna - fb": "essen isst gegessen eat ate pw",
    "pykna - d": "trinken trinkt getrunken drink drank pw",
    "pykn - b": "backen backt gebacken bake baked pf",
    "pykn - c": "tragen trägt getragen wear wore p, an|probieren probiert anprobiert try_on tried_on -",
    "pykn - w": "auf|machen macht aufgemacht open opened f, zu|machen macht zugemacht close closed -",
    "pykn - o": "reparieren repariert repariert repair repaired pf",
    "pykn - tco": "weg|werfen wirft weggeworfen throw_away threw_away -",
    "pykn - fbtco": "kaufen kauft gekauft buy bought pwf, vergessen vergisst vergessen forget forgot !",
    "pykn - atco": "haben hat =hatte have/has had !!",
    "pykn pykna -": "helfen hilft geholfen help helped p, zu|hören hört zugehört listen_to listened_to p",
    "pykna pykna -": "folgen folgt +gefolgt follow followed p",
    "pykn pykn fbdtco": "geben gibt gegeben give gave -, bringen bringt gebracht bring brought -, "
    "zeigen zeigt gezeigt show showed -",
    "pyknafbdtcowlh - -": "sein ist =war be/is was p!!",
}

# Name, time (n now, p past, f future), English (base/third person/past, or an auxiliary), German (ich/er/wir, or an
# adverb), and the ! of the verbs it fits
TENSE_TABLE = """
present n - - !!, past p - - !!, can n can kann/kann/können !, could p could konnte/konnte/konnten !,
will f will werde/wird/werden !!, may n may darf/darf/dürfen -, should n should sollte/sollte/sollten -,
want n want_to/wants_to/wanted_to will/will/wollen -, wanted p want_to/wants_to/wanted_to wollte/wollte/wollten -,
must n have_to/has_to/had_to muss/muss/müssen -, had p have_to/has_to/had_to musste/musste/mussten -,
like n like_to/likes_to/liked_to gern -"""

# English with a singular, a plural, a mass (_: allowed, and silent), German stem, its endings, how often
DETERMINER_TABLE = """
the the the d der 7, this these this dies der 1.2, my my my mein ein 1.5,
his his his sein ein 1, her her her ihr ein 1, a - - ein ein 5, every - - jed der 0.5, - many - viel adjective 1,
- two - zwei none 1, - three - drei none 1, - _ _ - none 3,
a any any kein ein 1, which which which welch der 1"""

# English, as an object, German nominative, accusative (none: it would be ambiguous), dative, person, and a group of
# which a clause has one member: neither 'we see me', nor sie (they) with sie (her)
PRONOUN_TABLE = """
I me ich mich mir 0 1, we us wir uns uns 2 1, he him er ihn ihm 1 2, she her sie sie ihr 1 3,
they them sie - ihnen 2 3, who - wer - - 1 4, what what was was - 1 5"""

# English, German, and for times: n, p, f as above, and * if it says how often, so that there is no 'not'
ADVERB_TABLE = """
today heute npf, yesterday gestern p, tomorrow morgen f, in_the_evening am_Abend npf, in_winter im_Winter npf,
on_Sunday am_Sonntag npf, last_week letzte_Woche p, every_day jeden_Tag np*, sometimes manchmal np*, not nicht -,
never nie -, often oft -, always immer -, very sehr -, too zu -, why warum -, where wo -, when wann -,
because weil -, although obwohl -, if wenn -, that dass -, whether ob -, and und -, but aber -"""

# English, German, case, kinds, use (p, d, w, f as of verbs)
PREPOSITION_TABLE = """
in in dat lh p, behind hinter dat hu p, under unter dat u p, on auf dat r p, into in acc lh d, to zu dat hur d,
through durch acc l d, with mit dat pykna w, without ohne acc pykna w, for für acc pykna f"""
CONTRACTIONS = {"in dem ": "im ", "in das ": "ins ", "zu dem ": "zum ", "zu der ": "zur "}

# Endings of der-words, by case, for m, f, n and plural
STRONG = {"nom": ("er", "e", "es", "e"), "acc": ("en", "e", "es", "e"), "dat": ("em", "er", "em", "en")}
HABEN, SEIN = ("habe", "hat", "haben"), ("bin", "ist", "sind")


class Noun(NamedTuple):
    kind: str
    german: str
    gender: str
    plural: str
    english: str


class Adjective(NamedTuple):
    german: str
    german_more: str
    english: str
    english_more: str
    kinds: str


class Verb(NamedTuple):
    subject: str  # kinds of it, and of the objects
    dative: str
    accusative: str
    infinitive: str
    third: str
    participle: str
    english: str
    past: str
    follows: str


class Tense(NamedTuple):
    time: str
    english: str
    german: str
    will: str


class Determiner(NamedTuple):
    english: tuple[str, str, str]  # with a singular, a plural, a mass
    stem: str
    endings: str
    weight: float


class Words(NamedTuple):
    english: str
    german: str
    times: str = ""


def _rows(table: str) -> list[list[str]]:
    rows = [row.split() for row in table.split(",")]
    return [["" if word == "-" else word.replace("_", " ") for word in row] for row in rows]


NOUNS = [Noun(kind, *row) for kind, table in NOUNS_OF.items() for row in _rows(table)]
ADJECTIVES = [Adjective(*row) for row in _rows(ADJECTIVE_TABLE)]
VERBS = [Verb(*_rows(kinds)[0], *row) for kinds, table in VERBS_OF.items() for row in _rows(table)]
TENSES = {name: Tense(*row) for name, *row in _rows(TENSE_TABLE)}
DETERMINERS = {  # by German stem
    row[3]: Determiner((row[0], row[1], row[2]), row[3], row[4], float(row[5])) for row in _rows(DETERMINER_TABLE)
}
WORDS = {row[0]: Words(*row) for row in _rows(ADVERB_TABLE)}
PRONOUNS = {row[0]: row for row in _rows(PRONOUN_TABLE)}
PREPOSITIONS = _rows(PREPOSITION_TABLE)

THE, NO = DETERMINERS["d"], DETERMINERS["kein"]
POOLS = {
    "any": [one for stem, one in DETERMINERS.items() if stem not in ("kein", "welch")],
    "known": [DETERMINERS[stem] for stem in ("d", "dies", "mein", "sein", "ihr")],
    "ours": [DETERMINERS[stem] for stem in ("mein", "sein", "ihr")],
    "somewhere": [THE, DETERMINERS["ein"]],
} | {stem: [one] for stem, one in DETERMINERS.items()}
NOT, BE = WORDS["not"], VERBS[-1]
SIMPLE = (TENSES["present"], TENSES["past"])
REPORTING = [verb for verb in VERBS if "c" in verb.follows]
COMMON = [verb for verb in VERBS if "c" not in verb.follows] + [BE] * (BE_WEIGHT - 1)
ANIMATE = set("pykna")
ON_THINGS = [verb for verb in VERBS if verb.accusative and not ANIMATE & set(verb.accusative)]

# ---- The parts, in both languages ----------------------------------------------------------------------------------


class Nominal(NamedTuple):
    """A pronoun or a noun phrase in its case, perhaps after a preposition."""

    english: str
    german: str
    person: int
    news: int = 0  # 0 a pronoun, 1 known, 2 new, 3 denied (kein)
    group: str = ""  # said but once in a sentence: the noun, or the group of the pronoun
    noun: Noun | None = None
    adjective: Adjective | None = None
    determiner: Determiner | None = None
    gender: str = ""
    clause: Clause | None = None  # a relative one


class Clause(NamedTuple):
    subject: Nominal
    verb: Verb
    tense: Tense
    objects: tuple[Nominal, ...] = ()  # dative first
    particle: Words | None = None  # not, never, often, always
    predicate: Words | None = None
    place: Nominal | None = None
    time: Words | None = None
    time_first: bool = False
    moved: Nominal | None = None  # the object that is asked for, or that the relative clause is about


class Sentence(NamedTuple):
    english: str
    german: str
    clauses: tuple[Clause, ...]


class Pair(NamedTuple):
    source: str  # English
    target: str  # German
    novel: bool


def pronoun(word: str, case: str = "nom") -> Nominal:
    subject, object_, *cases, person, group = PRONOUNS[word]
    german = dict(zip(STRONG, cases, strict=True))[case]
    return Nominal(subject if case == "nom" else object_, german, int(person), 0, group)


def phrase(
    noun: Noun, determiner: Determiner, adjective: Adjective | None = None, plural: bool = False, case: str = "nom"
) -> Nominal:
    """A noun and what stands before it."""
    gender = "plural" if plural else noun.gender.replace("w", "m")
    one, _, many = noun.english.partition("/")
    rest = _join(adjective and adjective.english, (many or _add_s(one)) if plural else one)
    word = determiner.english[_form(noun, plural)].strip()
    english = _join("an" if word == "a" and rest[0] in "aeiou" else word, rest)
    german, shown = _determine(determiner, case, gender)
    if adjective:  # the determiner shows gender and case, or else the adjective does
        weak = "e" if (case != "dat" and gender in "fn") or (case, gender) == ("nom", "m") else "en"
        german = _join(german, adjective.german.split("/")[-1] + (weak if shown else _strong(case, gender)))
    german = _join(german, noun.plural if plural or (noun.gender == "w" and case != "nom") else noun.german)
    german += "n" if plural and case == "dat" and german[-1] not in "ns" else ""
    news = 3 if determiner is NO else 1 if noun.kind == "n" or determiner in POOLS["known"] else 2
    return Nominal(english, german, MANY if plural else THIRD, news, noun.english, noun, adjective, determiner, gender)


def placed(preposition: Words, nominal: Nominal) -> Nominal:
    """A preposition before a nominal of its case."""
    text = f"{preposition.german} {nominal.german}"
    for long, short in CONTRACTIONS.items():
        text = short + text.removeprefix(long) if text.startswith(long) else text
    return nominal._replace(english=f"{preposition.english} {nominal.english}", german=text)


def predicate(adjective: Adjective, degree: Words | None = None, than: Nominal | None = None) -> Words:
    """What 'be' says: old, very old, too old, or older than somebody."""
    passes = "!" if "!" in adjective.kinds else ""
    if than:
        texts = f"{adjective.english_more} than {than.english}", f"{adjective.german_more} als {than.german}"
        return Words(*texts, passes)
    plain = adjective.german.split("/")[0]
    return Words(_join(degree and degree.english, adjective.english), _join(degree and degree.german, plain), passes)


def related(head: Nominal, clause: Clause) -> Nominal:
    """A phrase with a relative clause, whose subject it is and there silent, or else its object that has moved."""
    who = "who" if head.noun and head.noun.kind in "py" else "that"
    der, _ = _determine(THE, "acc" if clause.moved else "nom", head.gender)
    text = f"{head.english} {who} {english(clause)}", f"{head.german}, {der} {german(clause, 'last')},"
    return head._replace(english=text[0], german=text[1], clause=clause)


def _join(*words: str | None) -> str:
    return " ".join(filter(None, words))


def _add_s(words: str) -> str:
    """The English plural, or third person: of the first word, so that 'look for' gives 'looks for'."""
    word, space, rest = words.partition(" ")
    if word[-1] == "y" and word[-2] not in "aeiou":
        return f"{word[:-1]}ies{space}{rest}"
    return word + ("es" if word.endswith(("s", "x", "o", "ch", "sh")) else "s") + space + rest


def _form(noun: Noun, plural: bool) -> int:
    """A place in Determiner.english."""
    return 1 if plural else 0 if noun.plural else 2


def _strong(case: str, gender: str) -> str:
    return STRONG[case][("m", "f", "n", "plural").index(gender)]


def _determine(determiner: Determiner, case: str, gender: str) -> tuple[str, bool]:
    """The German determiner, and whether it shows gender and case."""
    ending = _strong(case, gender)
    if determiner is THE:
        return "d" + {"e": "ie", "es": "as"}.get(ending, ending), True
    silent = determiner.endings == "ein" and (case, gender) in (("nom", "m"), ("nom", "n"), ("acc", "n"))
    if silent or determiner.endings == "none":
        return determiner.stem, False
    return determiner.stem + ending, determiner.endings != "adjective"  # viele alte, but diese alten


# ---- The order of the parts ----------------------------------------------------------------------------------------


def statement(clause: Clause) -> Sentence:
    return _finish(english(clause), german(clause), ".", clause)


def question(clause: Clause, front: Nominal | Words | None = None) -> Sentence:
    """A question: yes or no; or who; or for what stands in front."""
    asks, order = clause.subject.english != "who", "second"
    if not front:
        front, order = Words("", ""), "first" if asks else "second"
    return _finish(english(clause, asks, front.english), german(clause, order, front.german), "?", clause)


def linked(main: Clause, link: Words, other: Clause, other_first: bool = False) -> Sentence:
    """Two clauses with a conjunction."""
    one, two = english(other), german(other, "second" if link.english in ("and", "but") else "last")
    if other_first:
        parts = f"{link.english} {one}, {english(main)}", f"{link.german} {two}, {german(main, 'first')}"
    else:
        before, comma = "," if link.english == "but" else "", "" if link.english == "and" else ","
        parts = f"{english(main)}{before} {link.english} {one}", f"{german(main)}{comma} {link.german} {two}"
    return _finish(*parts, ".", main, other)


def _finish(one: str, two: str, stop: str, *clauses: Clause) -> Sentence:
    return Sentence(one[0].upper() + one[1:] + stop, two[0].upper() + two[1:] + stop, clauses)


def english(clause: Clause, ask: bool = False, front: str = "") -> str:
    subject, particle = clause.subject.english, clause.particle.english if clause.particle else ""
    auxiliary, verb = _english_verb(clause, ask)
    if not ask and (auxiliary, particle) == ("can", "not"):
        auxiliary, particle = "cannot", ""
    time = clause.time.english if clause.time else ""
    early, late = (time, "") if clause.time_first else ("", time)
    start = (front, auxiliary, subject) if ask else (early, subject, auxiliary)
    parts = [one.english if one else "" for one in (*clause.objects, clause.predicate, clause.place)]
    return _join(*start, particle, verb, *parts, late)


def _english_verb(clause: Clause, ask: bool) -> tuple[str, str]:
    """The auxiliary, which stands before 'not' and in questions before the subject, and the rest of the verb."""
    past, person, modal = clause.tense.time == "p", clause.subject.person, clause.tense.english
    base, _, third = clause.verb.english.partition("/")
    if modal and "/" not in modal:
        return modal, base
    if clause.verb is BE:
        return (("was", "was", "were") if past else ("am", "is", "are"))[person], ""
    forms, rest = (modal.split("/"), base) if modal else ([base, third or _add_s(base), clause.verb.past], "")
    if ask or clause.particle is NOT:
        return "did" if past else "does" if person == THIRD else "do", _join(forms[0], rest)
    return "", _join(forms[2 if past else 1 if person == THIRD else 0], rest)


def german(clause: Clause, order: str = "second", front: str = "") -> str:
    """A clause with its finite verb first, second or last."""
    subject, (finite, end), middle = clause.subject.german, _german_verb(clause), _middle(clause)
    if order == "last":
        together = clause.verb.infinitive.startswith(f"{end}|")  # weil er anruft
        return _join(subject, middle, end + finite if together else _join(end, finite))
    front = front or (clause.time.german if clause.time and clause.time_first else "")
    start = (front, finite, subject) if front or order == "first" else (subject, finite)
    return _join(*start, middle, end)


def _german_verb(clause: Clause) -> tuple[str, str]:
    """The finite verb, and what stands at the end: a prefix, a participle or an infinitive."""
    verb, person, modal = clause.verb, clause.subject.person, clause.tense.german
    prefix, _, stem = verb.infinitive.rpartition("|")
    if "/" in modal:
        return modal.split("/")[person], prefix + stem
    mark, past = verb.participle[0], verb.participle.lstrip("+=")
    if clause.tense.time == "p":
        forms = (past, past, past.removesuffix("e") + "en") if mark == "=" else SEIN if mark == "+" else HABEN
        return forms[person], "" if mark == "=" else past
    first = stem[:-1] if verb.third[-1] == "t" else verb.third  # ich gehe, but ich weiß, as er weiß
    return (SEIN if verb is BE else (first, verb.third, stem))[person], prefix


def _middle(clause: Clause) -> str:
    """What stands between subject and end of a German clause: the known before the new, and 'nicht' between them.

    A pronoun follows the subject, although 'heute sieht sie die Frau' is good German: it has two readings.
    """
    pronouns, known, new = ([one.german for one in clause.objects if one.news in news] for news in ((0,), (1,), (2, 3)))
    time = clause.time.german if clause.time and not clause.time_first else ""
    kein = any(one.news == 3 for one in clause.objects)
    particle = clause.particle.german if clause.particle and not kein else ""
    denies = clause.particle in (NOT, WORDS["never"])
    start = (*known, time, particle) if denies else (time, particle, *known)
    gern = "" if "/" in clause.tense.german else clause.tense.german
    place, predicate = clause.place and clause.place.german, clause.predicate and clause.predicate.german
    return _join(*pronouns, *start, gern, place, *new, predicate)


# ---- What to say ---------------------------------------------------------------------------------------------------


@cache
def _nouns_of(kinds: str) -> list[Noun]:
    return [noun for noun in NOUNS if noun.kind in kinds]


@cache
def _adjectives_of(noun: Noun) -> list[Adjective]:
    kind = noun.kind.replace("n", "p")
    return [one for one in ADJECTIVES if kind in one.kinds and (noun.plural or "#" not in one.kinds)]


@cache
def _determiners_of(kind: str, form: int, pool: str) -> list[Determiner]:
    """Kin are always somebody's, other people nobody's: 'my man' would be a husband."""
    if kind in "nk":
        return POOLS["" if kind == "n" else "ours"]
    return [one for one in POOLS[pool] if one.english[form] and (kind not in "py" or one not in POOLS["ours"])]


@cache
def _tenses_of(verb: Verb, times: str) -> list[Tense]:
    """Nobody 'wants to wake up' or 'can love'."""
    return [one for one in TENSES.values() if one.time in times and verb.follows.count("!") <= len(one.will)]


@cache
def _times_of(tense: Tense, negated: bool) -> list[Words]:
    return [one for one in WORDS.values() if tense.time in one.times and not (negated and "*" in one.times)]


def _is_ambiguous(verb: Verb, tense: Tense, person: int) -> bool:
    """They read: now or then? He read: then."""
    return verb.english == verb.past and tense is TENSES["past"] and person != THIRD


class Speaker:
    """Says random sentences.

    `fill` scales the chances of what a clause can do without, and `said` holds what a sentence says but once: nouns,
    and groups of pronouns.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.fill = rng, 1.0
        self.said: set[str] = set()

    def chance(self, what: str) -> bool:
        scale = self.fill if what in ("adjective", "place", "time", "often") else 1
        return self.rng.random() < CHANCES[what] * scale

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.rng.random() * len(items))]

    def weigh(self, items: Iterable[T], weights: Iterable[float]) -> T:
        ends = list(accumulate(weights))
        return list(items)[bisect_right(ends, self.rng.random() * ends[-1], hi=len(ends) - 1)]

    def sentence(self) -> Sentence:
        self.said = set()
        shapes = (self.statement, self.question, self.linked, self.reported, self.related)
        return self.weigh(shapes, SHAPES.values())()

    def statement(self) -> Sentence:
        return statement(self.clause(COMMON))

    def question(self) -> Sentence:
        asked = self.weigh(QUESTIONS, QUESTIONS.values())
        if asked == "who":
            return question(self.clause(COMMON, subject=pronoun("who"), asks=True))
        clause = self.clause(ON_THINGS if asked == "what" else COMMON, asks=True)
        if asked == "what":
            which = self.chance("which")
            front = self.phrase(clause.verb.accusative, "acc", "welch") if which else pronoun("what", "acc")
            return question(clause._replace(objects=clause.objects[:-1], moved=front), front)
        if asked == "where" and "p" in clause.verb.follows and not clause.predicate:
            return question(clause._replace(place=None), WORDS["where"])
        if asked == "when" and "!" not in clause.verb.follows:
            return question(clause._replace(time=None), WORDS["when"])
        return question(clause, WORDS["why"] if asked == "why" else None)

    def linked(self) -> Sentence:
        link = self.weigh(LINKS, LINKS.values())
        main = self.clause(COMMON, "nf" if link == "if" else "npf", fill=LIGHT)
        echo = {"m": "he", "f": "she", "plural": "they"}.get(main.subject.gender)  # not n: the girl is she, and es
        person = main.subject.noun and main.subject.noun.kind in "pykn"
        subject = pronoun(echo) if echo and person and self.chance("same subject") else None
        other = self.clause(COMMON, main.tense.time.replace("f", "n"), subject, LIGHT)._replace(time_first=False)
        if link in ("and", "but") or not self.chance("other first"):
            return linked(main, WORDS[link], other)
        return linked(main._replace(time_first=False), WORDS[link], other, other_first=True)

    def reported(self) -> Sentence:
        """What somebody knows, says or asks."""
        verb = self.pick(REPORTING)
        main = self.clause([verb], fill=LIGHT, asks=verb.english == "ask")
        other = self.clause(COMMON, {"n": "npf", "p": "p", "f": "nf"}[main.tense.time], fill=LIGHT)
        doubt = verb.english == "ask" or (verb.english == "know" and main.particle is NOT)
        return linked(main, WORDS["whether" if doubt else "that"], other._replace(time_first=False))

    def related(self) -> Sentence:
        """A subject with a relative clause, in which no reader can take subject for object."""
        kinds, is_object = self.pick((("pya", False), ("fbdtco", True)))
        head = self.phrase(kinds, "nom", "d")
        alone = [verb for verb in COMMON if not verb.dative + verb.accusative]
        main = self.clause(alone, "np", head, 0)
        head = main.subject
        if is_object and head.noun:
            verbs = [verb for verb in ON_THINGS if head.noun.kind in verb.accusative and not verb.dative]
            inner = self.clause(verbs, "np", fill=LIGHT)._replace(objects=(), moved=head)
        else:
            verbs = [verb for verb in COMMON if verb is not BE and not ANIMATE & {*verb.dative, *verb.accusative}]
            inner = self.clause(verbs, "np", head, LIGHT)._replace(subject=head._replace(english="", german=""))
        subject = related(head, inner._replace(time_first=False))
        return statement(main._replace(subject=subject, time_first=False))

    def clause(
        self, verbs: Sequence[Verb], times: str = "npf", subject: Nominal | None = None, fill: float = 1.0,
        asks: bool = False,
    ) -> Clause:  # fmt: skip
        """A clause with one of the verbs at one of the times; if it asks, it is not negated."""
        self.fill = fill
        kind = (subject.noun.kind if subject.noun else "p") if subject else ""
        verb = self.pick([verb for verb in verbs if kind in verb.subject] if subject else verbs)
        simple = [one for one in SIMPLE if one.time in times]
        tense = self.pick(simple if simple and self.chance("simple tense") else _tenses_of(verb, times))
        subject = subject or self.nominal(
            verb.subject, "nom", "known" if verb is BE else "any"
        )  # no 'a kitchen is old'
        self.said.add(subject.group)
        if _is_ambiguous(verb, tense, subject.person):
            tense = TENSES["present"]
        every = subject.english.startswith("every ")  # are all not, or not all?
        clause = Clause(subject, verb, tense, (), NOT if not asks and not every and self.chance("not") else None)
        return self.timed(self.predicated(clause) if verb is BE else self.completed(clause), asks)

    def completed(self, clause: Clause) -> Clause:
        """With objects and a place. What 'not' denies is known, or else it is new and takes kein."""
        verb = clause.verb
        objects = [self.nominal(verb.dative, "dat", "known")] if verb.dative else []
        if verb.accusative:
            kein = clause.particle and clause.tense is not TENSES["like"] and self.chance("kein")
            pool = "kein" if kein else "known" if clause.particle else "any"
            objects.append(self.nominal(verb.accusative, "acc", pool))
        uses = verb.follows.strip("!c")
        place = self.place(uses) if uses == "d" or (uses and self.chance("place")) else None
        return clause._replace(objects=tuple(objects), place=place)

    def predicated(self, clause: Clause) -> Clause:
        """With where the subject is, or what it is like, and then without an adjective: no old king is young."""
        subject = clause.subject
        noun = subject.noun or NOUNS[0]
        if noun.kind in "pyknatco" and self.chance("somewhere"):
            return clause._replace(place=self.place("p"))
        if subject.determiner:
            clause = clause._replace(subject=phrase(noun, subject.determiner, None, subject.person == MANY))
        adjective, degree, than = self.pick(_adjectives_of(noun)), None, None
        if adjective.german_more and self.chance("than"):
            self.fill = 0
            than = self.phrase(noun.kind, "nom", "known")
        elif adjective.german_more and self.chance("very"):
            degree = self.pick((WORDS["very"], WORDS["too"]))
        if clause.tense.time == "f" and "!" not in adjective.kinds:
            clause = clause._replace(tense=TENSES["present"])
        return clause._replace(predicate=predicate(adjective, degree, than))

    def timed(self, clause: Clause, asks: bool) -> Clause:
        """With a time, or with 'never', 'often', 'always'; but not what something is like for good."""
        if clause.predicate and not clause.predicate.times:
            return clause
        if self.chance("time") and (clause.verb is BE or "!!" not in clause.verb.follows):
            time = self.pick(_times_of(clause.tense, clause.particle is NOT))
            return clause._replace(time=time, time_first=not asks and self.chance("time first"))
        if not asks and not clause.particle and clause.tense in SIMPLE and self.chance("often"):
            return clause._replace(particle=WORDS[self.pick(("never", "often", "always"))])
        return clause

    def place(self, uses: str) -> Nominal:
        use = self.pick(uses)
        one, two, case, kinds, _ = self.pick([row for row in PREPOSITIONS if row[4] == use])
        return placed(Words(one, two), self.nominal(kinds, case, "known" if use in "wf" else "somewhere"))

    def nominal(self, kinds: str, case: str, pool: str) -> Nominal:
        """A phrase, or a pronoun where a person may stand."""
        if "p" in kinds and self.chance("pronoun"):
            pronouns = [pronoun(word, case) for word in ("I", "we", "he", "she", "they")]
            pronouns = [one for one in pronouns if one.german and one.group not in self.said]
            if pronouns:
                self.said.add((chosen := self.pick(pronouns)).group)
                return chosen
        return self.phrase(kinds, case, pool)

    def phrase(self, kinds: str, case: str, pool: str) -> Nominal:
        nouns = [noun for noun in _nouns_of(kinds) if noun.english not in self.said] or _nouns_of(kinds)
        noun = self.pick(nouns)
        self.said.add(noun.english)
        plural = bool(noun.plural) and self.chance("plural place" if noun.kind in "lhur" else "plural")
        determiners, adjectives = _determiners_of(noun.kind, _form(noun, plural), pool), _adjectives_of(noun)
        determiner = self.weigh(determiners, [one.weight for one in determiners])
        adjective = self.pick(adjectives) if noun.kind != "n" and self.chance("adjective") else None
        return phrase(noun, determiner, adjective, plural, case)


# ---- The corpus ----------------------------------------------------------------------------------------------------


def corpus(seed: int = 1, train: int = 40_000, valid: int = 500, test: int = 1000) -> dict[str, list[Pair]]:
    """Three splits that share no sentence on either side. A seed has the same test for any size of the others."""
    speaker = Speaker(random.Random(seed))
    said: set[str] = set()
    pairs: dict[bool, list[Pair]] = {False: [], True: []}
    size = {False: train + valid + test - test // 2, True: test // 2}
    while any(len(pairs[novel]) < size[novel] for novel in pairs):
        sentence = speaker.sentence()
        novel = is_novel(sentence)
        texts = sentence.english, sentence.german
        fits = max(len(text.split()) for text in texts) <= LONGEST and said.isdisjoint(texts)
        if novel is not None and fits and len(pairs[novel]) < size[novel]:
            pairs[novel].append(Pair(*texts, novel))
            said.update(texts)
    old, rest = pairs[False][: test - test // 2], pairs[False][test - test // 2 :]
    mixed = [pair for both in zip_longest(old, pairs[True]) for pair in both if pair]
    return {"train": rest[valid:], "valid": rest[:valid], "test": mixed}


def is_held_out(adjective: Adjective, noun: Noun, verb: Verb) -> bool:
    """One triple in ten; by a checksum, so that an adjective and a noun still meet with most of the verbs."""
    return crc32(f"{adjective.english} {noun.english} {verb.infinitive}".encode()) % 10 == 0


def triples(clause: Clause) -> Iterator[tuple[Adjective, Noun, Verb, bool]]:
    """Each adjective of a clause with its noun and verb, and whether they are an argument of the verb or a place."""
    arguments = (clause.subject, *clause.objects, clause.moved)
    for one in (*arguments, clause.place):
        if one and one.adjective and one.noun:
            yield one.adjective, one.noun, clause.verb, one is not clause.place
    if clause.subject.clause:
        yield from triples(clause.subject.clause)


def is_novel(sentence: Sentence) -> bool | None:
    """Whether an argument is held out; None if only a place is, which fits neither half of test."""
    found = [triple for clause in sentence.clauses for triple in triples(clause) if is_held_out(*triple[:3])]
    return any(is_argument for *_, is_argument in found) or (None if found else False)
