"""The command line: one function per verb, no logic. `nmt VERB --help` has an example of it.

Results go to standard output, progress and warnings to standard error. Exit status: 0 done, 1 the work failed, 2 the
call was wrong, 130 and 143 after Ctrl-C and SIGTERM. What a verb needs is imported when it runs, so that `--help`
answers at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn

import typer

from nmt.errors import CallError, NmtError, ending

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Machine translation that you train for your language pair on your computer.",
)

Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe key, as often as you like.")
]
SearchSet = Annotated[
    list[str], typer.Option("--set", metavar="search.KEY=VALUE", help="Change how it searches, as often as you like.")
]
Beam = Annotated[int | None, typer.Option(min=1, max=100, help="Beam width; 1 is greedy.")]
Nbest = Annotated[int, typer.Option(min=1, max=100, help="Translations per line.")]
System = Annotated[str, typer.Argument(metavar="RUN", help="A model folder; an ensemble is written runs/a+runs/b.")]


class Format(StrEnum):
    text = "text"
    jsonl = "jsonl"


class Rounding(StrEnum):
    int8 = "int8"
    float32 = "float32"


class Significance(StrEnum):
    bootstrap = "bootstrap"
    randomisation = "randomisation"


def _version(wanted: bool) -> None:
    if wanted:
        from nmt import __version__

        typer.echo(f"nmt {__version__}")
        raise typer.Exit


@app.callback()
def _nmt(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def init(
    out: Annotated[Path, typer.Option(help="The recipe to write.")],
    source_file: Annotated[Path | None, typer.Option(help="Source sentences, one a line.")] = None,
    target_file: Annotated[Path | None, typer.Option(help="Their translations, one a line.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file with both sides: TSV, CSV, JSON, Parquet, TMX.")] = None,
    source: Annotated[
        str | None, typer.Option(help="The source language; needed with --file, else from the suffix.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The target language; needed with --file, else from the suffix.")
    ] = None,
    columns: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="SOURCE TARGET", help="The columns of the file, if not called like the languages."),
    ] = None,
) -> None:
    """Write a recipe for sentence pairs of your own.

    Example: nmt init --source-file pairs.en --target-file pairs.sw --out my.yaml
    """
    from nmt.init import write
    from nmt.progress import say

    if (file is None) == (source_file is None) or (source_file is None) != (target_file is None):
        raise CallError("give --source-file and --target-file, or --file with both sides")
    files = [file] if file else [side for side in (source_file, target_file) if side]
    _print(write(files, source, target, out, columns).rstrip())
    place = shlex.quote(str(out))
    say(f"written to {out}; next: nmt data {place}, then nmt train {place}")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")],
    changes: Set = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/<recipe> if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run folder stands.")] = False,
) -> None:
    """Train a translator, or another model that a recipe describes.

    Example: nmt train starter-en-de --set training.epochs=5
    """
    from nmt import run
    from nmt.progress import say

    loaded = run.load(recipe, changes)
    place = shlex.quote(str(run.train(loaded, out, resume)))
    verbs = ("remember", "evaluate") if loaded.task == "translation" else ("evaluate",)
    say("next: " + ", then ".join(f"nmt {verb} {place}" for verb in verbs))


@app.command()
def tune(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a translator.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Sentence pairs: TSV, CSV, JSON, TMX, ...")],
    changes: Set = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="The new run folder; RUN-tuned if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the new folder stands.")] = False,
) -> None:
    """Train a translator on with more pairs: corrections from the page, or another kind of text.

    One that remembers what it has read reads it again, and the new pairs with it.

    Example: nmt tune runs/starter-en-de corrections/en-de.tsv
    """
    from nmt import tune
    from nmt.progress import say

    place = shlex.quote(str(tune.tune(model, files, changes, out, resume)))
    say(f"next: nmt evaluate {place}")


@app.command()
def remember(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a translator.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="[FILE]...", help="More sentence pairs: TSV, CSV, JSON, TMX, ...")
    ] = [],  # noqa: B006
) -> None:
    """Have a translator look at the pairs that it was trained on while it writes, and at more of them.

    It translates better, and takes half as long again. Nothing is trained: corrections from the page have a say as soon
    as they are read. Again, it begins afresh; without the file examples.safetensors in its folder all is as before.

    Example: nmt remember runs/multi30k-en-de corrections/en-de.tsv
    """
    from nmt.remember import remember as read

    read(model, files)


@app.command()
def evaluate(
    systems: Annotated[list[str], typer.Argument(metavar="[RUN]...", help="Model folders or ensembles.")] = [],  # noqa: B006
    source: Annotated[Path | None, typer.Option(help="A test set of your own: the source lines.")] = None,
    reference: Annotated[list[Path], typer.Option(metavar="FILE", help="... and their translations.")] = [],  # noqa: B006
    hypothesis: Annotated[list[Path], typer.Option(metavar="FILE", help="Translations made elsewhere.")] = [],  # noqa: B006
    beam: Beam = None,
    changes: SearchSet = [],  # noqa: B006
    significance: Annotated[Significance, typer.Option(help="How two systems are compared.")] = Significance.bootstrap,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """BLEU, chrF and TER of runs, or of a file of translations. Of other models what their task is measured by.

    Example: nmt evaluate runs/multi30k-en-de
    """
    from nmt import evaluate as work
    from nmt import run

    settings = _search(beam, changes)
    if other := _shape(systems):
        if beam is not None and not run.searches(other):
            raise CallError(f"--beam: {systems[0]} chooses without a search: leave it out")
        if len(systems) > 1 or source or reference or hypothesis:
            raise CallError(f"{systems[0]} does not translate: it is evaluated alone, on the test split of its recipe")
        result = run.evaluate(other, Path(systems[0]), settings)
    else:
        result = work.run(
            systems,
            source,
            _one("--reference", reference),
            hypothesis,
            lambda name: run.translator(name, settings),
            significance.value,
        )
    _print(json.dumps(result.to_json(), ensure_ascii=False, indent=2) if as_json else str(result))


@app.command()
def translate(
    system: System,
    input: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Lines to translate; standard input if not given.")
    ] = [],  # noqa: B006
    output: Annotated[Path | None, typer.Option(help="Where to; standard output if not given.")] = None,
    format: Annotated[Format, typer.Option(help="jsonl has scores, pieces and alternatives.")] = Format.text,
    nbest: Nbest = 1,
    beam: Beam = None,
    changes: SearchSet = [],  # noqa: B006
) -> None:
    """Translate lines of text.

    Example: echo "A dog runs." | nmt translate runs/multi30k-en-de
    """
    from nmt.explain import warned
    from nmt.formats import count_lines, read_lines
    from nmt.progress import Bar, say
    from nmt.run import translator as load
    from nmt.translate import nbest_texts, to_json

    settings = _search(beam, changes)
    file = _one("--input", input)
    total = count_lines(file) if file and file.is_file() else 0  # a pipe can be read only once
    translator = load(system, settings)
    with _writing(output) as out, contextlib.ExitStack() as stack:
        bar = stack.enter_context(Bar("translating", total)) if total else None
        lines = read_lines(file) if file else _stdin_lines()
        found = warned(translator.stream(lines, nbest), translator.members[0].source.knows, say)
        for number, translation in enumerate(found, start=1):
            if format is Format.jsonl:
                out.write(json.dumps(to_json(translation), ensure_ascii=False) + "\n")
            else:
                out.write("".join(f"{text}\n" for text in nbest_texts(translation, nbest)))
            if bar:
                bar.update(number)


@app.command()
def score(
    system: System,
    source: Annotated[Path, typer.Argument(help="Source lines.")],
    target: Annotated[Path, typer.Argument(help="Their translations, N lines each with --nbest N.")],
    nbest: Nbest = 1,
    changes: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="search.KEY=VALUE", help="search.examples, search.batch_tokens: no other counts."
        ),
    ] = [],  # noqa: B006
) -> None:
    """Log-probability of each translation, by forced decoding, and the perplexity of all.

    Of a model that remembers what it has read, with that; --set search.examples=0 leaves it out.

    Example: nmt score runs/multi30k-en-de test.en test.de
    """
    from math import exp

    from nmt.evaluate import score_files
    from nmt.progress import say

    total, pieces = 0.0, 0
    out = _results()
    for scored in score_files(system, source, target, nbest, _search(None, changes)):
        out.write(f"{scored.log_prob:.4f}\n")
        total, pieces = total + scored.log_prob, pieces + len(scored.log_probs)
    say(f"{pieces:,} pieces, log-probability {total:.2f}, perplexity {exp(-total / pieces):.3f}")


@app.command()
def generate(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a language model.")],
    prompt: Annotated[str, typer.Option(help="What the text begins with.")] = "",
    length: Annotated[int, typer.Option(min=1, help="Pieces to write, at most.")] = 500,
    changes: SearchSet = [],  # noqa: B006
) -> None:
    """Write text with a language model.

    Example: nmt generate runs/char-lm-shakespeare --prompt "ROMEO:" --set search.temperature=0.7
    """
    from nmt.shapes import language_model

    out = _results()
    one = language_model.load(model, _search(None, changes))
    for text in language_model.write(one, prompt, length):
        out.write(text)
        out.flush()
    out.write("\n")


@app.command()
def caption(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a captioner.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pictures (PNG).")],
    beam: Beam = None,
    changes: SearchSet = [],  # noqa: B006
) -> None:
    """Say what is in pictures, a line each.

    Example: nmt caption runs/caption-shapes runs/caption-shapes/test-1.png
    """
    from nmt.shapes import captioner

    one = captioner.load(model, _search(beam, changes))
    _print("\n".join(captioner.caption(one, files)))


@app.command()
def tag(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a tagger.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="[FILE]...", help="Source lines and their translations; or lines alone.")
    ] = [],  # noqa: B006
) -> None:
    """Tag each word of lines of text: of two files, or of standard input with a tab between the two sides.

    A tagger that knows no source takes one file, or lines as they are; a frame of numbers is written x,y.

    Example: nmt tag runs/quality-tags-en-de test.src test.mt
    """
    from nmt.shapes import tagger

    out = _results()
    one = tagger.load(model)
    for tags in tagger.tag(one, tagger.lines(one, files, [] if files else _stdin_lines())):
        out.write(" ".join(tags) + "\n")


@app.command()
def classify(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a classifier.")],
    input: Annotated[Path | None, typer.Option(help="Lines to classify; standard input if not given.")] = None,
) -> None:
    """Say the class of each line of text and its probability, with a tab between them.

    Example: echo "a funny and moving film" | nmt classify runs/sentiment-sst2
    """
    from nmt.formats import read_lines
    from nmt.shapes import classifier

    out = _results()
    one = classifier.load(model)
    for label, probability in classifier.classify(one, read_lines(input) if input else _stdin_lines()):
        out.write(f"{label}\t{probability:.4f}\n")


@app.command()
def distill(
    system: System,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    back: Annotated[str | None, typer.Option(help="A translator of the opposite direction, for more sources.")] = None,
    nbest: Annotated[int, typer.Option(min=1, metavar="N", help="Take so many translations of each line.")] = 1,
    beam: Beam = None,
    changes: SearchSet = [],  # noqa: B006
) -> None:
    """Write a corpus to teach a model with: a translator's own, and what translators make of it.

    Stopped, it goes on when you run it again. No model looks at what it has read, where the answers are.

    Example: nmt distill runs/a+runs/b --back runs/c --nbest 3 --out taught
    """
    from nmt.distill import RECIPE
    from nmt.distill import distill as write
    from nmt.progress import say

    added = write(system, out, back, nbest, _search(beam, changes))
    say(f"written to {out}, with {added:,} pairs more")
    say(f"next: nmt train {shlex.quote(str(out / RECIPE))} --set model.decoder.hidden=256 --out runs/student")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a translator.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    precision: Annotated[Rounding, typer.Option(help="int8 is smaller and faster, and rounds.")] = Rounding.int8,
    shortlist: Annotated[
        int, typer.Option(min=0, metavar="K", help="Write only the K likeliest pieces for each of the source (0: all).")
    ] = 0,
) -> None:
    """Write a translator as ONNX: a small folder that every verb reads like the run, and translates sooner.

    With --shortlist 50 large vocabularies cost less; it is learnt from the training pairs, which must be at hand. What
    sentences are translated together may then change a word here and there, as rounding to int8 does.

    Example: nmt export runs/multi30k-en-de --out multi30k-en-de-small
    """
    from nmt.export import export as write
    from nmt.progress import say

    size, place = write(model, out, precision.value, shortlist) / 1e6, shlex.quote(str(out))
    say(f"written to {out}, {size:.1f} MB; next: nmt evaluate {place}, nmt translate {place}")


@app.command()
def demo(
    systems: Annotated[list[str], typer.Argument(metavar="RUN...", help="Model folders or ensembles.")],
    corrections: Annotated[Path, typer.Option(help="Folder for accepted corrections.")] = Path("corrections"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="A free one from 7860 on if not given.")] = None,
    auth: Annotated[
        Path | None, typer.Option(help="File with a line user:password for each user; else $NMT_DEMO_AUTH.")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Also at a public address, through gradio.live; needs --auth.")
    ] = False,
    beam: Beam = None,
    changes: SearchSet = [],  # noqa: B006
) -> None:
    """Open a page to translate in, in the browser.

    Example: nmt demo runs/starter-en-de
    """
    from nmt.serve import serve

    serve(systems, _search(beam, changes), corrections, host, port, auth, share)


@app.command()
def data(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A translator's: a YAML file, or the name of a shipped one.")
    ],
    changes: Set = [],  # noqa: B006
) -> None:
    """Fetch and prepare a recipe's corpus and say what is in it.

    Example: nmt data multi30k-en-de
    """
    from nmt import report
    from nmt.recipe import load, task

    if (found := task(recipe)) != "translation":
        raise CallError(f"{recipe} is for {found}: `nmt data` looks at sentence pairs; `nmt train` checks the rest")
    _print(report.data(load(recipe, changes), recipe))


@app.command()
def info(
    subject: Annotated[str, typer.Argument(metavar="RECIPE|RUN", help="A recipe or a model folder.")],
    changes: Set = [],  # noqa: B006
) -> None:
    """Parameters, sizes, data and scores of a run or a recipe.

    Example: nmt info runs/multi30k-en-de
    """
    from nmt import report, run

    _print(report.info(subject, changes, run.kind_of(subject)))


def _shape(systems: list[str]) -> Any:
    """The module of the task of the first system, where that is no translation."""
    if not systems or not (Path(systems[0]) / "recipe.yaml").is_file():
        return None
    from nmt import checkpoint, run

    return run.shape(checkpoint.task(Path(systems[0])))


def _search(beam: int | None, changes: Iterable[str]) -> list[str]:
    """The changes to a recipe's search that the flags ask for."""
    changes = list(changes)
    for change in changes:
        if "=" in change and not change.startswith("search."):
            raise CallError(f"--set {change}: of a trained model only search.* can be changed")
    return changes if beam is None else [f"search.beam={beam}", "search.method=beam", *changes]


def _one(option: str, files: Sequence[Path]) -> Path | None:
    """The file of an option, which may be given once: of several, all but the last would be lost."""
    if len(files) > 1:
        raise CallError(f"{option}: {' and '.join(map(str, files))}: one file can be given")
    return files[0] if files else None


def _results() -> IO[str]:
    """Standard output, in UTF-8 wherever. `nmt translate ... | head` ends quietly when its reader has enough."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # not for the whole process: connections to the hub may break
    if sys.stdout is None:
        raise CallError("standard output is closed: there is nowhere to write to")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    return sys.stdout


def _print(text: str) -> None:
    _results().write(text + "\n")


@contextlib.contextmanager
def _writing(path: Path | None) -> Iterator[IO[str]]:
    """A file that appears when it is complete, a pipe or device as it is, or standard output."""
    if path is None:
        yield _results()
        sys.stdout.flush()
        return
    from nmt.disk import replacing
    from nmt.formats import PACKED

    if path.is_dir():
        raise CallError(f"--output {path}: this is a folder: name a file")
    if path.suffix in PACKED:
        raise CallError(f"--output {path}: text is written as it is: name {path.with_suffix('')}, and pack that")
    with contextlib.ExitStack() as stack:
        # /dev/stdout is a file where it is redirected, which has what others wrote before
        whole = (not path.exists() or path.is_file()) and path.absolute().parts[1] not in ("dev", "proc")
        place = stack.enter_context(replacing(path.resolve())) if whole else path
        yield stack.enter_context(open(place, "w" if whole else "a", encoding="utf-8", newline="\n"))


def _stdin_lines() -> Iterator[str]:
    from nmt.formats import STDIN, decode_lines
    from nmt.progress import say

    if sys.stdin is None:
        raise CallError("standard input is closed: there is nothing to read")
    if sys.stdin.isatty():
        say("type lines; Ctrl-D ends them")
    return decode_lines(sys.stdin.buffer, STDIN)


def _fail(message: str, status: int) -> NoReturn:
    if sys.stderr:  # else print would write it among the results
        print(f"nmt: {message}", file=sys.stderr)
    sys.exit(status)


def _unexpected(error: Exception) -> str:
    """What is said of an error that nobody foresaw."""
    kind, what = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'reading or writing'}: {error.strerror}"
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in what:
        return (
            "out of memory: make batches smaller (training.batch_tokens, rows, batch or batch_steps, as the recipe has "
            f"it; search.batch_tokens where it translates), or choose a smaller model ({what})"
        )
    return f"unexpected {kind}: {what} (this is a bug: run again with NMT_DEBUG=1 and report what it prints)"


def main() -> NoReturn:
    """The entry point: errors become one line and an exit status, never a traceback."""
    for number in ending():  # so that what is half written is removed
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        app()
    except NmtError as error:
        _fail(str(error), error.status)
    except Exception as error:
        if os.environ.get("NMT_DEBUG"):
            raise
        _fail(_unexpected(error), 1)
    sys.exit(0)
