"""The starter pair: English and German from a synchronous grammar, so that a first model needs no download.

A sentence is a tree of meaning (`Sentence` > `Clause` > `Phrase`, `Verb`, `Tense`, ...). Each tree is read twice, once
in English and once in German, and the two readings are a pair. What a learner of German meets first is all here: three
genders and cases, adjective endings, verb second and verb last, separable verbs, the perfect with haben or sein, modal
verbs, nicht and kein, gern, relative clauses, questions.

Translation is a function in both directions, so a model can come near BLEU 100. Hence no 'you' (du, ihr or Sie), no
'their' (ihr is also her), no direct object 'them' (sie is also her), and one English past (saw) for the German perfect
(hat gesehen); an order of words that differs on one side differs on the other.

`corpus` holds out combinations: the triples (adjective, noun, verb) of `is_held_out`, such as an old king who sleeps,
are never in train or valid, and every second sentence of test is `novel`: it has one. All chance comes from
`Random.random()`, the one method whose numbers Python promises to keep, so a seed gives the same corpus everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple, TypeVar

T = TypeVar("T")
Forms = tuple[str, str, str]  # of a finite verb: I; he, she, it; we, they
THIRD, MANY = 1, 2  # places in Forms

# ---- How often what is said: the one place to make the corpus harder or easier -------------------------------------

SHAPES = {"statement": 46, "question": 22, "linked": 14, "reported": 9, "related": 9}
QUESTIONS = {"whether": 40, "who": 18, "what": 22, "why": 20}
CHANCES = {
    "be": 0.15, "plain tense": 0.65, "not": 0.18, "pronoun": 0.2, "plural": 0.3, "adjective": 0.45, "place": 0.3,
    "time": 0.35, "time first": 0.5, "often": 0.1, "other first": 0.35, "same subject": 0.4,
}  # fmt: skip
LIGHT = 0.35  # beside another clause, adjectives, places and times are this much rarer
LONGEST = 16  # words of either side

# ---- The words -----------------------------------------------------------------------------------------------------
# Kinds: p person, k kin, n name, a animal, f food, b to bake, g to cook, d drink, t text, c clothes, o other things,
# w what opens, l places, h houses, u to be under, r to be on. In all tables - is nothing and _ a space.

# German, gender (w: masculine and weak, as in 'dem Bären'), plural (none: a mass), English (with its plural, if irregular)
NOUN_TABLE = {
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

# German (with the stem of its endings, if irregular), comparative, English, comparative, kinds (!: it passes)
ADJECTIVE_TABLE = """
groß größer big bigger pkafbgtcowlhur, klein kleiner small smaller pkafbgtcowlhur, alt älter old older pkatcowlhur,
jung jünger young younger pka, neu neuer new newer tcowhr, schön schöner beautiful more_beautiful pkatcolh,
freundlich freundlicher friendly friendlier pka, müde/müd müder tired more_tired pka!,
hungrig hungriger hungry hungrier pka!, traurig trauriger sad sadder pkat!, klug klüger clever cleverer pka,
faul fauler lazy lazier pka, tapfer tapferer brave braver pka, teuer/teur teurer expensive more_expensive fbtco,
gut besser good better fbgdt, frisch frischer fresh fresher fbg, warm wärmer warm warmer gdc!,
kalt kälter cold colder gd!, schwarz - black - acow, rot - red - cow, lang länger long longer t,
dunkel/dunkl dunkler dark darker lh"""

# Kinds of subject, dative and accusative object; then infinitive (| after a prefix that separates), third person,
# participle (+: with sein; =: no perfect but this preterite), English (with its third person, if irregular), past, and
# what may follow: p place, d direction (and it must), w with, f for; !: against one's will, !!: not even with 'can'
VERB_TABLE = {
    ("pkna", "", ""): "schlafen schläft geschlafen sleep slept p, auf|wachen wacht +aufgewacht wake_up woke_up p!, "
    "ein|schlafen schläft +eingeschlafen fall_asleep fell_asleep p!, weg|laufen läuft +weggelaufen run_away ran_away -, "
    "gehen geht +gegangen go went d, laufen läuft +gelaufen run ran d",
    ("pkn", "", ""): "lachen lacht gelacht laugh laughed pw, weinen weint geweint cry cried p!, "
    "singen singt gesungen sing sang pw, tanzen tanzt getanzt dance danced pw, reiten reitet +geritten ride rode d, "
    "arbeiten arbeitet gearbeitet work worked pwf, auf|stehen steht +aufgestanden get_up got_up -",
    ("pkna", "", "pkna"): "sehen sieht gesehen see saw p!, suchen sucht gesucht look_for looked_for p, "
    "finden findet gefunden find found p!",
    ("pkn", "", "pkna"): "malen malt gemalt paint painted pf, lieben liebt geliebt love loved !!",
    ("pkn", "", "pkn"): "kennen kennt gekannt know knew !!, an|rufen ruft angerufen call called p, "
    "ein|laden lädt eingeladen invite invited -",
    ("a", "", "a"): "jagen jagt gejagt chase chased p",
    ("pkn", "", "t"): "lesen liest gelesen read read p, schreiben schreibt geschrieben write wrote pf",
    ("pkna", "", "fbg"): "essen isst gegessen eat ate pw",
    ("pkna", "", "d"): "trinken trinkt getrunken drink drank pw",
    ("pkn", "", "b"): "backen backt gebacken bake baked pf",
    ("pkn", "", "g"): "kochen kocht gekocht cook cooked pf",
    ("pkn", "", "c"): "tragen trägt getragen wear wore p, an|probieren probiert anprobiert try_on tried_on p",
    ("pkn", "", "w"): "auf|machen macht aufgemacht open opened f, zu|machen macht zugemacht close closed -",
    ("pkn", "", "o"): "reparieren repariert repariert repair repaired pf",
    (
        "pkn",
        "",
        "tco",
    ): "verlieren verliert verloren lose lost p!, weg|werfen wirft weggeworfen throw_away threw_away -",
    ("pkn", "", "fbgtco"): "kaufen kauft gekauft buy bought pwf, vergessen vergisst vergessen forget forgot !!",
    ("pkn", "", "atco"): "haben hat =hatte have/has had !!",
    ("pkn", "pkna", ""): "helfen hilft geholfen help helped p, danken dankt gedankt thank thanked -, "
    "zu|hören hört zugehört listen_to listened_to p",
    ("pkna", "pkna", ""): "folgen folgt +gefolgt follow followed p",
    ("pkn", "pkn", "fbgdtco"): "geben gibt gegeben give gave -, bringen bringt gebracht bring brought -, "
    "zeigen zeigt gezeigt show showed -",
}
REPORTING_TABLE = (
    "wissen weiß gewusst know knew !!, sagen sagt gesagt say said !!, glauben glaubt geglaubt believe believed !!, "
    "fragen fragt gefragt ask asked !!"
)

# Name, time, English (base/third/past, or an auxiliary), German (ich/er/wir, or an adverb), ! as in VERB_TABLE
TENSE_TABLE = """
present n - - !!, past p - - !!, can n can kann/kann/können !, could p could konnte/konnte/konnten !,
will f will werde/wird/werden !!, may n may darf/darf/dürfen -, should n should sollte/sollte/sollten -,
wants n want_to/wants_to/wanted_to will/will/wollen -, wanted p want_to/wants_to/wanted_to wollte/wollte/wollten -,
must n have_to/has_to/had_to muss/muss/müssen -, had p have_to/has_to/had_to musste/musste/mussten -,
likes n like_to/likes_to/liked_to gern -"""

# English with a singular, a plural, a mass (_: allowed, and silent), German stem, endings, how often
DETERMINER_TABLE = """
the the the d der 7, this these this dies der 1.2, my my my mein ein 1.2, our our our unser ein 0.7,
his his his sein ein 1, her her her ihr ein 1, a - - ein ein 5, every - - jed der 0.5, - many - viel many 0.8,
- two - zwei none 0.8, - three - drei none 0.8, - five - fünf none 0.5, - seven - sieben none 0.5, - _ _ - none 3"""

# English, as an object, German nominative, accusative, dative, agreement, and a group, of which a clause has one member:
# neither 'we see me', nor sie (they) with sie (her)
PRONOUN_TABLE = """
I me ich mich mir 0 1, we us wir uns uns 2 1, he him er ihn ihm 1 2, she her sie sie ihr 1 3,
they them sie - ihnen 2 3, who - wer - - 1 4, what what was was - 1 5"""

# English, German, times (n now, p past, f future; *: says how often, so there is no 'not')
TIME_TABLE = """
today heute npf, yesterday gestern p, tomorrow morgen f, in_the_evening am_Abend npf, in_winter im_Winter npf,
on_Sunday am_Sonntag npf, last_week letzte_Woche p, every_day jeden_Tag np*, sometimes manchmal np*"""

# English, German, case, kinds, use (p, d, w, f as in VERB_TABLE)
PREPOSITION_TABLE = """
in in dat lh p, behind hinter dat hu p, under unter dat u p, on auf dat r p, into in acc lh d, to zu dat hu d,
through durch acc l d, with mit dat pkna w, without ohne acc pkna w, for für acc pkna f"""

# ---- The parts of a tree -------------------------------------------------------------------------------------------


class Noun(NamedTuple):
    index: int
    kind: str
    english: tuple[str, str]  # singular, plural
    german: tuple[str, str]
    gender: str
    weak: bool

    @property
    def count(self) -> bool:
        return bool(self.german[1])


class Adjective(NamedTuple):
    index: int
    german: str
    stem: str
    german_more: str
    english: str
    english_more: str
    kinds: str


class Determiner(NamedTuple):
    english: Forms  # singular, plural, mass
    stem: str
    endings: str
    weight: float


class Verb(NamedTuple):
    index: int
    english: Forms  # base, third person, past
    german: Forms  # present
    prefix: str
    infinitive: str
    participle: str
    helper: Forms
    preterite: Forms | None
    kinds: tuple[str, str, str]  # of subject, dative and accusative object
    follows: str


class Tense(NamedTuple):
    when: str
    english: list[str]
    german: list[str]
    will: str


class Words(NamedTuple):
    """An adverb or a conjunction."""

    english: str
    german: str
    times: str = ""


class Preposition(NamedTuple):
    english: str
    german: str
    case: str
    kinds: str
    use: str


class Pronoun(NamedTuple):
    words: tuple[str, str]  # subject, object
    cases: dict[str, str]
    agreement: int
    group: str

    def english(self, case: str) -> str:
        return self.words[case != "nom"]

    def german(self, case: str) -> str:
        return self.cases[case]


class Phrase(NamedTuple):
    determiner: Determiner
    adjective: Adjective | None
    noun: Noun
    plural: bool = False

    @property
    def agreement(self) -> int:
        return MANY if self.plural else THIRD

    @property
    def gender(self) -> str:
        return "plural" if self.plural else self.noun.gender

    def english(self, case: str) -> str:
        del case  # English nouns show none
        word = self.determiner.english[_number(self.noun, self.plural)].strip()
        rest = _join(self.adjective and self.adjective.english, self.noun.english[self.plural])
        return _join("an" if word == "a" and rest[0] in "aeiou" else word, rest)

    def german(self, case: str) -> str:
        # the determiner shows gender and case, or else the adjective does
        word, shown = _determine(self.determiner, case, self.gender)
        weak = "e" if case != "dat" and self.gender in "fn" or (case, self.gender) == ("nom", "m") else "en"
        ending = weak if shown else STRONG[case][self.gender]
        noun = self.noun.german[self.plural or (self.noun.weak and case != "nom")]
        more = "n" if self.plural and case == "dat" and noun[-1] not in "ns" else ""
        return _join(word, self.adjective and self.adjective.stem + ending, noun + more)


class Related(NamedTuple):
    """A phrase with a relative clause, in which it is the subject (nom) or the object (acc)."""

    phrase: Phrase
    clause: Clause
    gap: str

    @property
    def agreement(self) -> int:
        return self.phrase.agreement

    def english(self, case: str) -> str:
        pronoun = "who" if self.phrase.noun.kind == "p" else "that"
        return _join(self.phrase.english(case), pronoun, _english(self.clause, gap=self.gap))

    def german(self, case: str) -> str:
        pronoun, _ = _determine(THE, self.gap, self.phrase.gender)
        return f"{self.phrase.german(case)}, {pronoun} {_german(self.clause, 'last', gap=self.gap)},"


Nominal = Phrase | Pronoun | Related


class Place(NamedTuple):
    """A preposition and its phrase; also 'with', 'without' and 'for' somebody."""

    preposition: Preposition
    nominal: Phrase | Pronoun

    def english(self) -> str:
        return _join(self.preposition.english, self.nominal.english(self.preposition.case))

    def german(self) -> str:
        text = _join(self.preposition.german, self.nominal.german(self.preposition.case))
        for long, short in CONTRACTIONS.items():
            if text.startswith(long):
                return short + text.removeprefix(long)
        return text


class Predicate(NamedTuple):
    """What 'be' says: old, very old, too old, or older than somebody."""

    adjective: Adjective
    degree: Words | None = None
    than: Phrase | None = None

    def english(self) -> str:
        if self.than:
            return f"{self.adjective.english_more} than {self.than.english('nom')}"
        return _join(self.degree and self.degree.english, self.adjective.english)

    def german(self) -> str:
        if self.than:
            return f"{self.adjective.german_more} als {self.than.german('nom')}"
        return _join(self.degree and self.degree.german, self.adjective.german)


class Clause(NamedTuple):
    subject: Nominal
    verb: Verb
    tense: Tense
    objects: tuple[tuple[str, Phrase | Pronoun], ...] = ()  # each with its case, dative first
    particle: Words | None = None
    predicate: Predicate | None = None
    place: Place | None = None
    time: Words | None = None
    time_first: bool = False


class Sentence(NamedTuple):
    main: Clause
    mood: str = "statement"  # or a key of QUESTIONS
    opener: Words | None = None
    link: Words | None = None
    other: Clause | None = None
    other_first: bool = False


class Pair(NamedTuple):
    source: str  # English
    target: str  # German
    novel: bool


# ---- The two readings of a tree ------------------------------------------------------------------------------------


def render(sentence: Sentence) -> tuple[str, str]:
    """The English and the German sentence."""
    main, mood, link = sentence.main, sentence.mood, sentence.link
    asked: Nominal | None = main.objects[-1][1] if mood == "what" else None
    gap = "acc" if asked else ""
    front = (asked.english("acc"), asked.german("acc")) if asked else (sentence.opener or Words("", ""))[:2]
    english = _english(main, mood in ("whether", "what", "why"), front[0], gap)
    german = _german(main, "first" if mood == "whether" or sentence.other_first else "second", front[1], gap)
    if link and sentence.other:
        one = _join(link.english, _english(sentence.other))
        two = _join(link.german, _german(sentence.other, "second" if link in (AND, BUT) else "last"))
        if sentence.other_first:
            english, german = f"{one}, {english}", f"{two}, {german}"
        else:
            english, german = f"{english}{',' * (link == BUT)} {one}", f"{german}{',' * (link != AND)} {two}"
    stop = "." if mood == "statement" else "?"
    return english[0].upper() + english[1:] + stop, german[0].upper() + german[1:] + stop


def _join(*words: str | None) -> str:
    return " ".join(word for word in words if word)


def _english(clause: Clause, ask: bool = False, front: str = "", gap: str = "") -> str:
    subject = "" if gap == "nom" else clause.subject.english("nom")
    time = clause.time.english if clause.time else ""
    particle = clause.particle.english if clause.particle else ""
    auxiliary, rest = _english_verb(clause, ask)
    if ask:
        start = _join(front, auxiliary, subject, particle, rest)
    else:
        verb = "cannot" if (auxiliary, particle) == ("can", "not") else _join(auxiliary, particle)
        start = _join(time if clause.time_first else "", subject, verb, rest)
    objects = [nominal.english(case) for case, nominal in clause.objects if case != gap]
    predicate, place = clause.predicate and clause.predicate.english(), clause.place and clause.place.english()
    return _join(start, *objects, predicate, place, "" if clause.time_first else time)


def _english_verb(clause: Clause, ask: bool) -> tuple[str, str]:
    """The auxiliary, which goes before 'not' and in questions before the subject, and the rest of the verb."""
    verb, (when, lead, *_), agreement = clause.verb, clause.tense, clause.subject.agreement
    if len(lead) == 1 and lead[0]:
        return lead[0], verb.english[0]
    if verb == BE:
        return (("was", "was", "were") if when == "p" else ("am", "is", "are"))[agreement], ""
    base, third, past = lead if len(lead) == 3 else verb.english
    rest = verb.english[0] if len(lead) == 3 else ""
    if ask or clause.particle == NOT:
        return "did" if when == "p" else "does" if agreement == THIRD else "do", _join(base, rest)
    return "", _join(past if when == "p" else third if agreement == THIRD else base, rest)


def _german(clause: Clause, order: str, front: str = "", gap: str = "") -> str:
    """A clause with its finite verb first, second or last."""
    subject = "" if gap == "nom" else clause.subject.german("nom")
    finite, end = _german_verb(clause)
    middle = _join(*_middle(clause, gap))
    if order == "last":  # a prefix is one word with its verb there: weil er anruft
        return _join(subject, middle, end + finite if end == clause.verb.prefix else f"{end} {finite}")
    front = front or (clause.time.german if clause.time and clause.time_first else "")
    start = (subject, finite) if order == "second" and not front else (front, finite, subject)
    return _join(*start, middle, end)


def _german_verb(clause: Clause) -> tuple[str, str]:
    """The finite verb, and what stands at the end: a prefix, a participle or an infinitive."""
    verb, tense, agreement = clause.verb, clause.tense, clause.subject.agreement
    if len(tense.german) == 3:
        return tense.german[agreement], verb.infinitive
    if tense.when == "n":
        return verb.german[agreement], verb.prefix
    return (verb.preterite[agreement], "") if verb.preterite else (verb.helper[agreement], verb.participle)


def _middle(clause: Clause, gap: str) -> list[str]:
    """What stands between the two parts of the verb: the known before the new, 'nicht' between them."""
    pronouns, known, new = [], [], []
    for case, nominal in clause.objects:
        group = pronouns if isinstance(nominal, Pronoun) else known if _is_known(nominal) else new
        group += [nominal.german(case)] if case != gap else []
    time = [clause.time.german] if clause.time and not clause.time_first else []
    kein = any(isinstance(nominal, Phrase) and nominal.determiner == NO for case, nominal in clause.objects)
    particle = [clause.particle.german] if clause.particle and not kein else []
    particle += clause.tense.german if len(clause.tense.german) == 1 else []  # gern
    place = [clause.place.german()] if clause.place else []
    predicate = [clause.predicate.german()] if clause.predicate else []
    start = known + time if clause.particle == NOT else time + known
    return pronouns + start + particle + place + new + predicate


def _is_known(phrase: Phrase) -> bool:
    return phrase.noun.kind == "n" or phrase.determiner in DEFINITE


def _number(noun: Noun, plural: bool) -> int:
    """A place in Determiner.english."""
    return 1 if plural else 0 if noun.count else 2


def _determine(determiner: Determiner, case: str, gender: str) -> tuple[str, bool]:
    """The German determiner, and whether it shows gender and case."""
    ending = STRONG[case][gender]
    if determiner == THE:
        return "d" + {"e": "ie", "es": "as"}.get(ending, ending), True
    if determiner.endings == "ein" and (case, gender) in (("nom", "m"), ("nom", "n"), ("acc", "n")):
        return determiner.stem, False
    if determiner.endings == "none":
        return determiner.stem, False
    return determiner.stem + ending, determiner.endings != "many"  # viele alte, but diese alten


# ---- Reading the tables --------------------------------------------------------------------------------------------


def _rows(table: str) -> list[list[str]]:
    rows = [row.split() for row in table.split(",")]
    return [["" if word == "-" else word.replace("_", " ") for word in row] for row in rows]


def _add_s(words: str) -> str:
    """The English plural, or third person: of the first word, so that 'look for' gives 'looks for'."""
    word, space, rest = words.partition(" ")
    if word[-1] == "y" and word[-2] not in "aeiou":
        return f"{word[:-1]}ies{space}{rest}"
    return word + ("es" if word.endswith(("s", "x", "o", "ch", "sh")) else "s") + space + rest


def _nouns() -> dict[str, Noun]:
    nouns: dict[str, Noun] = {}
    for kind, table in NOUN_TABLE.items():
        for german, gender, plural, english in _rows(table):
            one, _, many = english.partition("/")
            both = (one, many or _add_s(one))
            nouns[one] = Noun(len(nouns), kind, both, (german, plural), gender.replace("w", "m"), gender == "w")
    return nouns


def _adjectives() -> dict[str, Adjective]:
    adjectives: dict[str, Adjective] = {}
    for german, more, english, english_more, kinds in _rows(ADJECTIVE_TABLE):
        whole, _, stem = german.partition("/")
        adjectives[english] = Adjective(len(adjectives), whole, stem or whole, more, english, english_more, kinds)
    return adjectives


def _verb(index: int, row: list[str], kinds: tuple[str, str, str]) -> Verb:
    infinitive, third, participle, english, past, follows = row
    prefix, _, stem = infinitive.rpartition("|")
    base, _, irregular = english.partition("/")
    first = stem[:-1] if third[-1] == "t" else third  # ich gehe, but ich weiß, as er weiß
    helper = SEIN if participle[0] == "+" else HABEN
    preterite = (participle[1:], participle[1:], participle[1:] + "n") if participle[0] == "=" else None
    words, forms = (base, irregular or _add_s(base), past), (first, third, stem)
    return Verb(index, words, forms, prefix, prefix + stem, participle.strip("+="), helper, preterite, kinds, follows)


HABEN: Forms = ("habe", "hat", "haben")
SEIN: Forms = ("bin", "ist", "sind")
WAR: Forms = ("war", "war", "waren")
ENDINGS = {"nom": ("er", "e", "es", "e"), "acc": ("en", "e", "es", "e"), "dat": ("em", "er", "em", "en")}
STRONG = {case: dict(zip(("m", "f", "n", "plural"), row, strict=True)) for case, row in ENDINGS.items()}
CONTRACTIONS = {"in dem ": "im ", "in das ": "ins ", "zu dem ": "zum ", "zu der ": "zur "}

NOUNS = _nouns()
ADJECTIVES = _adjectives()
VERBS = {
    row[3].partition("/")[0]: _verb(index, row, kinds)
    for index, (row, kinds) in enumerate((row, kinds) for kinds, table in VERB_TABLE.items() for row in _rows(table))
}
BE = Verb(len(VERBS), ("be", "is", "was"), SEIN, "", "sein", "", SEIN, WAR, ("pknafbgdtcowlh", "", ""), "p!!")
REPORTING = {row[3]: _verb(BE.index + i, row, ("pkn", "", "")) for i, row in enumerate(_rows(REPORTING_TABLE), 1)}
TENSES = {row[0]: Tense(row[1], row[2].split("/"), row[3].split("/"), row[4]) for row in _rows(TENSE_TABLE)}
DETERMINERS = {
    (one or many).strip(): Determiner((one, many, mass), stem, endings, float(weight))
    for one, many, mass, stem, endings, weight in _rows(DETERMINER_TABLE)
}
ANY = tuple(DETERMINERS.values())
THE, BARE = DETERMINERS["the"], DETERMINERS[""]
POSSESSIVE = tuple(DETERMINERS[word] for word in ("my", "our", "his", "her"))
DEFINITE = (THE, DETERMINERS["this"], *POSSESSIVE)
NO = Determiner(("a", "any", "any"), "kein", "ein", 1)  # does not see a dog, sieht keinen Hund
WHICH = Determiner(("which", "which", "which"), "welch", "der", 1)
PRONOUNS = {
    row[0]: Pronoun((row[0], row[1]), dict(zip(STRONG, row[2:5], strict=True)), int(row[5]), row[6])
    for row in _rows(PRONOUN_TABLE)
}
WHO, WHAT = PRONOUNS["who"], PRONOUNS["what"]
TIMES = {row[0]: Words(*row) for row in _rows(TIME_TABLE)}
PREPOSITIONS = {row[0]: Preposition(*row) for row in _rows(PREPOSITION_TABLE)}
NOT, NEVER, OFTEN, ALWAYS = (Words(*row.split()) for row in ("not nicht", "never nie", "often oft", "always immer"))
VERY, TOO, WHY, WHERE, WHEN = (
    Words(*row.split()) for row in ("very sehr", "too zu", "why warum", "where wo", "when wann")
)
BECAUSE, ALTHOUGH, IF, THAT, WHETHER, AND, BUT = (
    Words(*row.split())
    for row in ("because weil", "although obwohl", "if wenn", "that dass", "whether ob", "and und", "but aber")
)

# ---- Saying something ----------------------------------------------------------------------------------------------


@cache
def _nouns_of(kinds: str) -> list[Noun]:
    return [noun for noun in NOUNS.values() if noun.kind in kinds]


@cache
def _adjectives_of(kind: str) -> list[Adjective]:
    return [adjective for adjective in ADJECTIVES.values() if kind in adjective.kinds]


@cache
def _determiners_of(kind: str, number: int, pool: tuple[Determiner, ...]) -> list[Determiner]:
    allowed = (BARE,) if kind == "n" else POSSESSIVE if kind == "k" else pool
    return [determiner for determiner in allowed if determiner.english[number]]


class _Speaker:
    """Says random sentences. `fill` scales the chances of what may be left out."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def chance(self, what: str, fill: float = 1.0) -> bool:
        return self.rng.random() < CHANCES[what] * fill

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.rng.random() * len(items))]

    def weigh(self, weights: dict[str, int]) -> str:
        return self.pick([key for key, weight in weights.items() for _ in range(weight)])

    def phrase(
        self, kinds: str, pool: tuple[Determiner, ...] = ANY, said: Sequence[Nominal] = (), fill: float = 1.0
    ) -> Phrase:
        """A noun phrase whose noun is not `said` yet."""
        taken = [nominal.noun for nominal in said if isinstance(nominal, Phrase)]
        noun = self.pick([noun for noun in _nouns_of(kinds) if noun not in taken])
        plural = noun.count and self.chance("plural")
        allowed = _determiners_of(noun.kind, _number(noun, plural), pool)
        at = self.rng.random() * sum(determiner.weight for determiner in allowed)
        determiner = allowed[-1]
        for determiner in allowed:
            at -= determiner.weight
            if at < 0:
                break
        adjectives = _adjectives_of(noun.kind)
        adjective = self.pick(adjectives) if adjectives and self.chance("adjective", fill) else None
        return Phrase(determiner, adjective, noun, plural)

    def nominal(
        self, kinds: str, case: str, said: Sequence[Nominal], pool: tuple[Determiner, ...], fill: float
    ) -> Phrase | Pronoun:
        """A noun phrase, or a pronoun where a person may stand."""
        if "p" in kinds and self.chance("pronoun"):
            groups = ["4", "5", *(nominal.group for nominal in said if isinstance(nominal, Pronoun))]
            pronouns = [word for word in PRONOUNS.values() if word.cases[case] and word.group not in groups]
            return self.pick(pronouns)
        return self.phrase(kinds, pool, said, fill)

    def tense(self, verb: Verb, times: str) -> Tense:
        fitting = [tense for tense in TENSES.values() if tense.when in times and _suits(verb, tense)]
        plain = [tense for tense in fitting if tense in (TENSES["present"], TENSES["past"])]
        return self.pick(plain if plain and self.chance("plain tense") else fitting)

    def clause(
        self, verbs: Sequence[Verb] | None = None, times: str = "npf", subject: Nominal | None = None,
        fill: float = 1.0, plain: bool = False,
    ) -> Clause:  # fmt: skip
        """A clause, which is in no way negated if `plain`."""
        if verbs is None and self.chance("be") or verbs == [BE]:
            return self.be(times, subject, fill, plain)
        verb = self.pick(verbs or _verbs_of("p" if subject else ""))
        tense = self.tense(verb, times)
        subject = subject or self.nominal(verb.kinds[0], "nom", (), ANY, fill)
        negated = not plain and _can_negate(subject) and self.chance("not")
        if verb.english[0] == verb.english[2] and subject.agreement != THIRD and not negated and tense.when == "p":
            tense = TENSES["present"]  # 'they read' would be two tenses
        said, objects = [subject], []
        for case, kinds in zip(("dat", "acc"), verb.kinds[1:], strict=True):
            if kinds:
                last = case == "acc" or not verb.kinds[2]
                kein = negated and last and tense != TENSES["likes"] and self.rng.random() < 0.6
                pool = (NO,) if kein else DEFINITE if negated or not last else ANY
                pronoun_kinds = kinds if last and not kein else kinds
                said.append(self.nominal(pronoun_kinds, case, said, pool, fill))
                objects.append((case, said[-1]))
        place = self.place(verb, said, fill)
        clause = Clause(subject, verb, tense, tuple(objects), NOT if negated else None, None, place)
        return self.circumstances(clause, fill, plain)
