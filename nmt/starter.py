"""The starter pair: English and German from a synchronous grammar, so that a first model needs no download.

Each part is built in both languages at once: a `Nominal` is 'the old dog' and 'den alten Hund', and a `Clause` of such
parts is read by `english` and by `german`, which put them in order. What a learner of German meets first is all here:
three genders and cases, adjective endings, verb second and verb last, separable verbs, the perfect with haben or sein,
modal verbs, nicht and kein, gern, relative clauses, questions. Up to `question` and `linked` nothing is random: what
is said is chosen by `Speaker` alone.

Translation is a function in both directions, so that a model can come near BLEU 100. Hence no 'you' (du, ihr or Sie),
no 'their' (ihr is also her), no direct object 'them' (sie is also her), and one English past (saw) for the German
perfect (hat gesehen); and where the order of words differs on one side, it differs on the other.

`corpus` holds out combinations: the triples (adjective, noun, verb) of `is_held_out`, such as an old king who sleeps,
are never in train or valid, and every second sentence of test is `novel`: it has one. All chance comes from
`Random.random()`, the one method whose numbers Python promises to keep, so a seed gives the same corpus everywhere.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate, product
from math import prod
from typing import NamedTuple, TypeVar

T = TypeVar("T")
Forms = tuple[str, str, str]  # of a German verb: I; he, she, it; we, they. Of an English one: base, third person, past
THIRD, MANY = 1, 2  # places in the German forms

# ---- How often what is said: the one place to make the corpus harder or easier -------------------------------------

SHAPES = {"statement": 46, "question": 22, "linked": 14, "reported": 9, "related": 9}
QUESTIONS = {"whether": 40, "who": 18, "what": 22, "why": 20}
LINKS = {"because": 3, "although": 2, "if": 2, "and": 1, "but": 2}
CHANCES = {
    "simple tense": 0.65, "not": 0.18, "kein": 0.6, "pronoun": 0.2, "plural": 0.3, "adjective": 0.45, "place": 0.3,
    "time": 0.35, "time first": 0.5, "often": 0.1, "other first": 0.35, "same subject": 0.4, "which": 0.5,
    "somewhere": 0.35, "than": 0.25, "very": 0.3,
}  # fmt: skip
BES = 8  # 'be' is as frequent as so many other verbs
LIGHT = 0.35  # beside another clause, adjectives, places and times are so much rarer
LONGEST = 16  # words of either side

# ---- The words: in all tables a comma ends a row, - is nothing and _ a space ---------------------------------------
# Kinds of noun: p person, k kin, n name, a animal, f food, b to bake, g to cook, d drink, t text, c clothes, o other
# things, w what opens, l places, h houses, u to be under, r to be on.

# German, gender (w: masculine, and weak: dem Bären), plural (none: a mass or a name), English (/ an irregular plural)
NOUNS_OF = {
    "p": "Mann m Männer man/men, Frau f Frauen woman/women, Kind n Kinder child/children, Junge w Jungen boy, "
    "Mädchen n Mädchen girl, König m Könige king, Königin f Königinnen queen, Riese w Riesen giant, "
    "Hexe f Hexen witch, Räuber m Räuber robber",
    "k": "Bruder m Brüder brother, Schwester f Schwestern sister, Großmutter f Großmütter grandmother, "
    "Onkel m Onkel uncle",
    "n": "Anna f - Anna, Emma f - Emma, Klara f - Klara, Paul m - Paul, Felix m - Felix, Jonas m - Jonas",
    "a": "Hund m Hunde dog, Katze f Katzen cat, Pferd n Pferde horse, Maus f Mäuse mouse/mice, "
    "Gans f Gänse goose/geese, Bär w Bären bear, Wolf m Wölfe wolf/wolves, Fuchs m Füchse fox",
    "f": "Apfel m Äpfel apple, Birne f Birnen pear, Käse m - cheese",
    "b": "Kuchen m Kuchen cake, Brot n - bread",
    "g": "Ei n Eier egg, Kartoffel f Kartoffeln potato, Suppe f - soup",
    "d": "Milch f - milk, Tee m - tea, Wasser n - water",
    "t": "Buch n Bücher book, Brief m Briefe letter, Zeitung f Zeitungen newspaper, Gedicht n Gedichte poem",
    "c": "Hut m Hüte hat, Mantel m Mäntel coat, Hemd n Hemden shirt, Jacke f Jacken jacket",
    "o": "Auto n Autos car, Uhr f Uhren clock, Fahrrad n Fahrräder bicycle, Lampe f Lampen lamp",
    "w": "Tür f Türen door, Fenster n Fenster window",
    "l": "Garten m Gärten garden, Küche f Küchen kitchen, Wald m Wälder forest, Stadt f Städte city, "
    "Dorf n Dörfer village",
    "h": "Haus n Häuser house, Schloss n Schlösser castle, Schule f Schulen school",
    "u": "Tisch m Tische table, Bett n Betten bed, Baum m Bäume tree",
    "r": "Brücke f Brücken bridge, Dach n Dächer roof",
}

# German (/ the stem of its endings), comparative (none: no 'very' either), English, comparative, kinds (!: it passes)
ADJECTIVE_TABLE = """
groß größer big bigger pkafbgtcowlhur, klein kleiner small smaller pkafbgtcowlhur, alt älter old older pkatcowlhur,
jung jünger young younger pka, neu neuer new newer tcowhr, schön schöner beautiful more_beautiful pkatcolh,
freundlich freundlicher friendly friendlier pka, müde/müd müder tired more_tired pka!, gut besser good better fbgdt,
hungrig hungriger hungry hungrier pka!, traurig trauriger sad sadder pkat!, klug klüger clever cleverer pka,
faul fauler lazy lazier pka, tapfer tapferer brave braver pka, teuer/teur teurer expensive more_expensive fbtco,
frisch frischer fresh fresher fbg, warm wärmer warm warmer gdc!, kalt kälter cold colder gd!, lang länger long longer t,
schwarz - black - acow, rot - red - cow, dunkel/dunkl dunkler dark darker lh"""
OPPOSITES = ("big small", "old young new", "warm cold", "black red", "sad beautiful")

# By the kinds of subject, dative and accusative object: infinitive (| after a prefix that separates), third person,
# participle (+: with sein; =: a preterite instead), English (/ an irregular third person), past, and what follows:
# p place, d direction (always), w with, f for, c clause (always); !: without will, !!: so much so that 'can' is odd
VERBS_OF = {
    "pkna - -": "schlafen schläft geschlafen sleep slept p, auf|wachen wacht +aufgewacht wake_up woke_up p!, "
    "ein|schlafen schläft +eingeschlafen fall_asleep fell_asleep p!, weg|laufen läuft +weggelaufen run_away ran_away -,"
    "gehen geht +gegangen go went d, laufen läuft +gelaufen run ran d",
    "pkn - -": "lachen lacht gelacht laugh laughed pw, weinen weint geweint cry cried p!, "
    "singen singt gesungen sing sang pw, tanzen tanzt getanzt dance danced pw, reiten reitet +geritten ride rode d, "
    "arbeiten arbeitet gearbeitet work worked pwf, auf|stehen steht +aufgestanden get_up got_up -, "
    "wissen weiß gewusst know_that knew_that c!!, sagen sagt gesagt say_that said_that c!!, "
    "glauben glaubt geglaubt believe_that believed_that c!!, fragen fragt gefragt ask_whether asked_whether c!!",
    "pkna - pkna": "sehen sieht gesehen see saw p!, suchen sucht gesucht look_for looked_for p, "
    "finden findet gefunden find found p!",
    "pkn - pkna": "malen malt gemalt paint painted pf, lieben liebt geliebt love loved !!",
    "pkn - pkn": "kennen kennt gekannt know knew !!, an|rufen ruft angerufen call called p, "
    "ein|laden lädt eingeladen invite invited -",
    "a - a": "jagen jagt gejagt chase chased p",
    "pkn - t": "lesen liest gelesen read read p, schreiben schreibt geschrieben write wrote pf",
    "pkna - fbg": "essen isst gegessen eat ate pw",
    "pkna - d": "trinken trinkt getrunken drink drank pw",
    "pkn - b": "backen backt gebacken bake baked pf",
    "pkn - g": "kochen kocht gekocht cook cooked pf",
    "pkn - c": "tragen trägt getragen wear wore p, an|probieren probiert anprobiert try_on tried_on p",
    "pkn - w": "auf|machen macht aufgemacht open opened f, zu|machen macht zugemacht close closed -",
    "pkn - o": "reparieren repariert repariert repair repaired pf",
    "pkn - tco": "verlieren verliert verloren lose lost p!, weg|werfen wirft weggeworfen throw_away threw_away -",
    "pkn - fbgtco": "kaufen kauft gekauft buy bought pwf, vergessen vergisst vergessen forget forgot !!",
    "pkn - atco": "haben hat =hatte have/has had !!",
    "pkn pkna -": "helfen hilft geholfen help helped p, danken dankt gedankt thank thanked -, "
    "zu|hören hört zugehört listen_to listened_to p",
    "pkna pkna -": "folgen folgt +gefolgt follow followed p",
    "pkn pkn fbgdtco": "geben gibt gegeben give gave -, bringen bringt gebracht bring brought -, "
    "zeigen zeigt gezeigt show showed -",
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
the the the d der 7, this these this dies der 1.2, my my my mein ein 1.2, our our our unser ein 0.7,
his his his sein ein 1, her her her ihr ein 1, a - - ein ein 5, every - - jed der 0.5, - many - viel adjective 0.8,
- two - zwei none 0.8, - three - drei none 0.8, - five - fünf none 0.5, - seven - sieben none 0.5, - _ _ - none 3,
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
in in dat lh p, behind hinter dat hu p, under unter dat u p, on auf dat r p, into in acc lh d, to zu dat hu d,
through durch acc l d, with mit dat pkna w, without ohne acc pkna w, for für acc pkna f"""
CONTRACTIONS = {"in dem ": "im ", "in das ": "ins ", "zu dem ": "zum ", "zu der ": "zur "}

# Endings of der-words, by case, for m, f, n and plural
STRONG = {"nom": ("er", "e", "es", "e"), "acc": ("en", "e", "es", "e"), "dat": ("em", "er", "em", "en")}
HABEN, SEIN, WAR = ("habe", "hat", "haben"), ("bin", "ist", "sind"), ("war", "war", "waren")


class Noun(NamedTuple):
    number: int
    kind: str
    english: tuple[str, str]  # singular, plural
    german: tuple[str, str]
    gender: str
    weak: bool


class Adjective(NamedTuple):
    number: int
    german: str
    stem: str
    german_more: str
    english: str
    english_more: str
    kinds: str


class Determiner(NamedTuple):
    english: tuple[str, str, str]  # with a singular, a plural, a mass
    stem: str
    endings: str
    weight: float


class Verb(NamedTuple):
    number: int
    english: Forms
    german: Forms
    prefix: str
    infinitive: str
    participle: str
    perfect: bool  # or else the past is the preterite in `past`
    past: Forms
    kinds: list[str]  # of subject, dative and accusative object
    follows: str


class Tense(NamedTuple):
    time: str
    english: list[str]
    german: list[str]
    will: str


class Words(NamedTuple):
    english: str
    german: str
    times: str = ""


class Preposition(NamedTuple):
    english: str
    german: str
    case: str
    kinds: str
    use: str


def _rows(table: str) -> list[list[str]]:
    rows = [row.split() for row in table.split(",")]
    return [["" if word == "-" else word.replace("_", " ") for word in row] for row in rows]


def _add_s(words: str) -> str:
    """The English plural, or third person: of the first word, so that 'look for' gives 'looks for'."""
    word, space, rest = words.partition(" ")
    if word[-1] == "y" and word[-2] not in "aeiou":
        return f"{word[:-1]}ies{space}{rest}"
    return word + ("es" if word.endswith(("s", "x", "o", "ch", "sh")) else "s") + space + rest


def _noun(number: int, kind: str, german: str, gender: str, plural: str, english: str) -> Noun:
    one, _, many = english.partition("/")
    return Noun(number, kind, (one, many or _add_s(one)), (german, plural), gender.replace("w", "m"), gender == "w")


def _adjective(number: int, german: str, german_more: str, *english: str) -> Adjective:
    whole, _, stem = german.partition("/")
    return Adjective(number, whole, stem or whole, german_more, *english)


def _verb(number: int, kinds: str, *row: str) -> Verb:
    infinitive, third, participle, words, english_past, follows = row
    prefix, _, stem = infinitive.rpartition("|")
    base, _, irregular = words.partition("/")
    first = stem[:-1] if third[-1] == "t" else third  # ich gehe, but ich weiß, as er weiß
    english = (base, irregular or _add_s(base), english_past)
    mark, plain = participle[0], participle.lstrip("+=")
    past = (plain, plain, plain + "n") if mark == "=" else SEIN if mark == "+" else HABEN
    german = (first, third, stem)
    return Verb(number, english, german, prefix, prefix + stem, plain, mark != "=", past, _rows(kinds)[0], follows)
