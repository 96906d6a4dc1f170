"""What the page shows, as HTML and Markdown. Every text from outside is escaped."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from html import escape
from itertools import takewhile
from pathlib import PurePath
from typing import Any

import yaml
from babel import Locale, UnknownLocaleError

from nmt.explain import Explanation, Word
from nmt.metrics import Report, Sentence
from nmt.recipe import Recipe

SURE, DOUBTFUL = 0.8, 0.5  # probabilities of a word above which it is not marked, and below which it is marked twice

KEPT = '<p class="quiet">✓ kept to train on</p>'


def language(code: str) -> str:
    """The English name of a language code, the code itself where nobody knows it."""
    try:
        return Locale.parse(code.replace("-", "_")).get_display_name("en") or code
    except (UnknownLocaleError, ValueError):
        return code


def pair(languages: tuple[str, str]) -> str:
    return f"{language(languages[0])} → {language(languages[1])}"


def sentences(
    found: Sequence[Explanation],
    languages: tuple[str, str],
    waiting: int,
    chosen: int = 0,
    kept: Collection[int] = (),
) -> str:
    """Sentences under each other, source above translation; `waiting` more are to come, `kept` ones were accepted."""
    if not found and not waiting:
        return '<p class="quiet">Type a text above and press Translate: its words appear here.</p>'
    parts = [_sentence(number, one, languages, number == chosen, number in kept) for number, one in enumerate(found)]
    if waiting:
        parts.append(f'<p class="quiet" role="status">{waiting} more to translate …</p>')
    return "".join(parts)


def _sentence(number: int, found: Explanation, languages: tuple[str, str], chosen: bool, kept: bool) -> str:
    source = "".join(_source(place, word) for place, word in enumerate(found.source))
    groups: list[str] = []  # a mark stays on the line of its word
    for place, word in enumerate(found.target):
        if not groups or word.space or any(map(str.isalnum, word.text)):
            groups.append(" <span>" if word.space else "<span>")
        groups[-1] += _target(place, word, found)
    target = "".join(f"{group}</span>" for group in groups)
    return (
        f'<div class="sentence{" chosen" if chosen else ""}" data-sentence="{number}">'
        f'<p class="source" dir="auto" lang="{escape(languages[0])}">{source}</p>'
        f'<p class="target" dir="auto" lang="{escape(languages[1])}">{target}</p>{KEPT * kept}</div>'
    )


def _source(place: int, word: Word) -> str:
    unknown = "" if word.known else ' class="unknown" title="this model never saw such letters"'
    return f'{" " if word.space else ""}<span data-word="{place}"{unknown}>{escape(word.text)}</span>'


def _target(place: int, word: Word, found: Explanation) -> str:
    sure = word.probability if word.probability is not None else 1.0
    band = "sure" if sure >= SURE else "unsure" if sure >= DOUBTFUL else "doubtful"
    looks = "" if found.attention is None else json.dumps([round(look, 3) for look in found.attention[place].tolist()])
    return (
        f'<button type="button" class="{band}" data-word="{place}" data-looks="{looks}" '
        f'title="{sure:.0%}" aria-label="{escape(word.text)}, probability {sure:.0%}">{escape(word.text)}</button>'
    )


def legend(attention: bool) -> str:
    """How to read the words."""
    how = (
        "Point at a word, or go to it with the arrow keys, to see where in the source the model looked."
        if attention
        else "This model has no attention: it reads the whole sentence before it writes, so no word points back."
    )
    return (
        f'<p class="legend"><span class="unsure">Dotted</span>: the model gave this word a chance below {SURE:.0%}, '
        f'<span class="doubtful">wavy</span>: below {DOUBTFUL:.0%}; <span class="unknown">boxed</span> in the source: '
        f"letters that this model never saw. {how} Press a word for others in its place.</p>"
    )


def short(text: str, most: int = 40) -> str:
    """A text with its end cut off if it is long."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def share(probability: float) -> str:
    return f"{probability:.0%}" if probability >= 0.005 else "<1%"


def from_where_they_differ(texts: Sequence[str]) -> list[str]:
    """Texts that begin alike, from the first word that is not the same in all of them."""
    words = [text.split(" ") for text in texts]
    alike = sum(1 for _ in takewhile(lambda at: len(set(at)) == 1, zip(*words, strict=False)))
    return ["… " + (" ".join(one[alike:]) or "(end)") for one in words] if alike else list(texts)


def scores(report: Report) -> str:
    """The scores of an evaluation, each with its interval and its signature."""
    rows = [
        f"<dt>{escape(one.name)}</dt><dd><strong>{one.value:.2f}</strong>"
        + (f" {one.low:.2f} to {one.high:.2f} (95 %)" if one.low is not None else "")
        + f"<code>{escape(one.signature)}</code></dd>"
        for one in report.scores
    ]
    return f'<dl class="scores">{"".join(rows)}</dl>'


def worst(found: Sequence[Sentence]) -> str:
    """The sentences with the lowest chrF."""
    rows = [
        '<li><dl dir="auto">'
        f"<dt>Source</dt><dd>{escape(one.source or '')}</dd>"
        f'<dt>Translation</dt><dd class="hypothesis">{escape(one.hypothesis)}</dd>'
        f"<dt>Reference</dt><dd>{escape(one.reference)}</dd></dl></li>"
        for one in found
    ]
    return f'<h3>The worst sentences, by chrF</h3><ol class="worst">{"".join(rows)}</ol>'


def recipe(one: Recipe) -> str:
    """A recipe as YAML, without where files lie on the machine."""
    content = one.model_dump(mode="json")
    places = {"data": ("path", "train", "valid", "test", "extra", "known"), "training": ("init_from", "teacher")}
    places["search"] = ("reverse", "language_model")
    for section, keys in places.items():
        name = _name if section == "data" else _system
        for key in keys:
            given = content[section][key]
            content[section][key] = [name(part) for part in given] if isinstance(given, list) else name(given)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _name(path: str | None) -> str | None:
    return path and PurePath(path).name


def _system(folders: str | None) -> str | None:
    """The names of a model's folder, or of those of an ensemble."""
    return folders and "+".join(PurePath(part).name for part in folders.split("+"))


def use(address: str, named: str, user: str | None) -> str:
    """How a program asks a model for translations, in Markdown; as `user` where the page wants a login."""
    login = f', auth=("{user}", "…")' if user else ""
    named = json.dumps(named, ensure_ascii=False)  # in quotes, whatever is in it
    return f"""### Use it from a program

```python
from gradio_client import Client

client = Client("{address}"{login})
client.predict("…", {named}, api_name="/translate")
client.predict("…", "its translation", {named}, api_name="/score")   # log probability
```
"""


def about(name: str, info: Mapping[str, Any], evaluation: Mapping[str, Any] | None, remembers: int = 0) -> str:
    """A model, for people to read, in Markdown; `remembers` so many pairs."""
    parts, data, best = info["parameters"], info["data"], info.get("best")
    lines = [
        f"### {name}",
        f"{sum(parts.values()):,} parameters: " + ", ".join(f"{part} {count:,}" for part, count in parts.items()) + ".",
        f"Trained on {data['train']:,} sentence pairs ({data['pieces']['target']:,} target pieces), "
        f"validated on {data['valid']:,}.",
    ]
    if info.get("seconds"):
        lines.append(f"Training took {info['seconds'] / 60:.0f} minutes: {info['updates']:,} updates.")
    if remembers:
        lines.append(f"It remembers {remembers:,} pairs and looks at them while it writes.")
    if best:
        lines.append(f"Best on valid: BLEU {best['bleu']:.2f}, chrF {best['chrf']:.2f} (`{best['signature']}`).")
    if evaluation:
        files = " and ".join(PurePath(file).name for file in evaluation["test"].split(" and "))  # not where they lie
        lines.append(f"On {files} ({evaluation['sentences']:,} sentences):")
        for report in list(evaluation["systems"].values())[:1]:
            lines += [f"- {one['name']} {one['value']:.2f} (`{one['signature']}`)" for one in report["scores"]]
    return "\n\n".join(lines)
