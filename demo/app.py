"""The page as people see it, and the server behind it. `nmt demo` opens it.

Layout and events stand here, what they do in `page`, looks in `style.css`, what moves in the browser in `words.js`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: people translate private text
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nmt.document import SUFFIXES
from nmt.hardware import spare_memory
from nmt.progress import say
from nmt.recipe import Search

from . import view
from .page import DAY, NOTHING, Model, Page, Turn, options

HERE = Path(__file__).parent
LARGEST = "5mb"  # of a file
WAITING = 64  # visitors in the queue; more are told that it is busy
AT_ONCE = 16  # visitors whose sentences are translated together
FONTS = ["system-ui", "Segoe UI", "Noto Sans", "Arial", "sans-serif"]
MONO = ["ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace"]
POLICY = (  # the browser may talk to this server only, whatever the framework's page asks for
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; frame-ancestors 'self'"
)
CURSOR = """(work, text, ...rest) => {
  const box = document.querySelector("#correction textarea");
  return [work, box ? text.slice(0, box.selectionStart) : text, ...rest];
}"""
QUIET: Any = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": AT_ONCE}
NEAR = """() => setTimeout(() => document.querySelector("#others")?.scrollIntoView({ block: "nearest" }), 50)"""


def build(page: Page) -> gr.Blocks:
    """The page over its handlers."""
    labels = list(page.models)
    with gr.Blocks(title="nmt", analytics_enabled=False, fill_width=False, delete_cache=(3600, DAY)) as blocks:
        # First, so that they get their names. Not in batches of Gradio's, which fail as a whole: the service batches.
        gr.api(page.api_translate, api_name="translate", concurrency_limit=AT_ONCE)
        gr.api(page.api_score, api_name="score", concurrency_limit=AT_ONCE)
        gr.Markdown("# Translate", elem_classes="head")
        with gr.Row(equal_height=True):
            pair = gr.Dropdown(
                labels, value=labels[0], label="Languages and model", scale=5, min_width=240, elem_id="pair"
            )
            swap = gr.Button("⇄ Swap", scale=1, min_width=96, visible=page.opposite(labels[0]) is not None)
        with gr.Tabs():
            with gr.Tab("Translate"):
                _translate(page, pair, swap)
            with gr.Tab("Files"):
                _files(page, pair)
            with gr.Tab("Evaluate"):
                _evaluate(page, pair)
            with gr.Tab("About"):
                _about(page, pair, blocks)
    return blocks


def _translate(page: Page, pair: gr.Dropdown, swap: gr.Button) -> None:
    model = next(iter(page.models.values()))
    source_language, target_language = map(view.language, model.languages)
    work, looking, turn = gr.State(), gr.State(value=False), gr.State(Turn())  # each visitor gets a copy
    size: Any = {"lines": 6, "max_lines": 16, "min_width": 240}  # on a phone one below the other
    with gr.Row():
        source = gr.Textbox(
            label=source_language, placeholder="Type or paste text; Ctrl+Enter translates", elem_id="source", **size
        )
        target = gr.Textbox(label=target_language, interactive=False, buttons=["copy"], elem_id="target", **size)
    go = gr.Button("Translate", variant="primary", elem_id="go")
    beam, length, _, sampling, temperature = search = _options(
        [one.service.translator.settings for one in page.models.values()]
    )
    with gr.Row(elem_classes="work"):
        with gr.Column(scale=3, min_width=320):
            gr.Markdown("## Word by word")
            legend = gr.HTML(view.legend(model.attends))
            words = gr.HTML(
                view.sentences([], model.languages, 0),
                elem_classes="words",
                elem_id="words",
                js_on_load=(HERE / "words.js").read_text(encoding="utf-8"),
            )
            others = gr.Radio(  # beside the words, so that a phone shows both
                [], label="Instead of", visible=False, elem_id="others", elem_classes="choices"
            )
        with gr.Column(scale=2, min_width=320):
            detail, complete, accept = _correct()
    sentence, correction, best, picture, frame, place = detail

    shown = [work, target, words]
    details: Any = {"fn": page.chosen, "inputs": [work, looking], "outputs": detail, **QUIET}
    shows: Any = {"outputs": [target, words, work, others], "trigger_mode": "always_last", **QUIET}
    for event in (go.click, source.submit):
        event(page.translate, [source, pair, turn, *search], **shows).then(**details)
    pair.input(page.cleared, [pair, turn], [target, words, work, others], **QUIET).then(**details)
    chosen = [source, target, swap, legend, beam, length, sampling, temperature]
    pair.change(page.picked, pair, chosen, **QUIET)
    swap.click(page.swap, [pair, source, target, turn], [pair, source, target, words, work, others], **QUIET).then(
        **details
    )
    accepted = accept.click(page.accept, [work, correction, sentence, place], shown, **QUIET)
    ranked = best.input(page.ranked, [work, best, sentence, place], shown, **QUIET)
    completed = complete.click(page.complete, [work, correction, sentence, place], shown, js=CURSOR, **QUIET)
    for another in (accepted, ranked, completed):  # of which nothing is known at the word
        another.then(lambda: NOTHING, None, others, **QUIET)
    pressed = words.click(page.pressed, work, [work, words, others], **QUIET)
    pressed.then(None, js=NEAR)
    pressed.then(page.turned, [work, looking, place], detail, **QUIET)
    frame.expand(lambda work: (True, page.picture(work)), work, [looking, picture], **QUIET)
    frame.collapse(lambda: False, None, looking, **QUIET)
    for change in (
        accepted,
        ranked,
        completed,
        others.input(page.replaced, [work, others], shown, **QUIET),
    ):
        change.then(**details)


def _options(searches: Sequence[Search]) -> list[gr.components.Component]:
    """Beam width, length penalty, alternatives, sampling, temperature; in the order `Page.translate` takes them.

    As the first model has them, with room for what the others have.
    """
    width, penalty, at_random, warmth = options(searches[0])
    with gr.Accordion("Options", open=False):
        with gr.Row():
            beam = gr.Slider(
                1,
                max(20, *(search.beam for search in searches)),
                value=width,
                step=1,
                label="Beam width",
                info="More looks further; 1 is greedy",
            )
            length = gr.Slider(
                0,
                max(3, *(search.length_penalty for search in searches)),
                value=penalty,
                step=0.1,
                label="Length penalty",
                info="More gives longer translations",
            )
            nbest = gr.Slider(1, 10, value=3, step=1, label="Alternatives", info="As many as the beam is wide at most")
        with gr.Row():
            sampling = gr.Checkbox(at_random, label="Sample at random instead of searching for the best")
            temperature = gr.Slider(
                0,
                max(2, *(search.temperature for search in searches)),
                value=warmth,
                step=0.1,
                label="Temperature of sampling",
                info="More is more varied",
            )
    return [beam, length, nbest, sampling, temperature]


def _correct() -> tuple[list[gr.blocks.Block], gr.Button, gr.Button]:
    """What `Page.chosen` fills in (sentence, correction, n best, picture and its frame, which it is), and the buttons
    to complete and to accept."""
    gr.Markdown("## Correct a sentence")
    looked = gr.Textbox(label="Sentence", interactive=False, elem_id="sentence")
    correction = gr.Textbox(
        label="Translation",
        info="Correct it, or its beginning, and Complete from the cursor: after a space with a new word. "
        "Accept keeps the sentence to train on",
        lines=2,
        elem_id="correction",
    )
    with gr.Row():
        complete = gr.Button("Complete", min_width=120, elem_id="complete")
        accept = gr.Button("Accept", min_width=120, elem_id="accept")
    best = gr.Radio(
        [],
        label="The best translations",
        info="In brackets the score of each: the nearer to 0, the surer the model",
        visible=False,
        elem_id="best",
        elem_classes="choices",
    )
    with gr.Accordion("Where the model looked, as a picture", open=False, visible=False, elem_id="looked") as frame:
        picture = gr.Image(
            show_label=False,
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_classes="chart",
            alt_text="The words of the source, the words of the translation, and how much each looked at each",
        )
    return [looked, correction, best, picture, frame, gr.State()], complete, accept


def _files(page: Page, pair: gr.Dropdown) -> None:
    gr.Markdown(
        "Text (`.txt`), a table whose first column is translated (`.tsv`, `.csv`), or subtitles (`.srt`, `.vtt`), in "
        f"UTF-8, up to {LARGEST.upper()}. Order, empty lines and times stay as they are."
    )
    with gr.Row():
        given = gr.File(label="File to translate", file_types=list(SUFFIXES), elem_id="upload", min_width=240)
        done = gr.File(label="Translation to download", interactive=False, elem_id="download", min_width=240)
    go = gr.Button("Translate the file", variant="primary")
    go.click(page.file, [given, pair], done, concurrency_limit=4, api_visibility="private")
    pair.change(lambda: None, None, done, **QUIET)  # it was written by another model


def _evaluate(page: Page, pair: gr.Dropdown) -> None:
    gr.Markdown(
        "Two files of lines in UTF-8: sources, and their translations by people. The model translates the sources, and "
        "its translations are compared with theirs."
    )
    with gr.Row():
        source = gr.File(label="Source lines", elem_id="evaluate-source", min_width=240)
        reference = gr.File(label="Reference lines", elem_id="evaluate-reference", min_width=240)
    go = gr.Button("Evaluate", variant="primary")
    scores = gr.HTML(elem_id="scores")
    picture = gr.Image(
        show_label=False,
        interactive=False,
        visible=False,
        buttons=["download"],
        elem_id="by-length",
        elem_classes="chart",
        alt_text="BLEU by the length of the source",
    )
    worst = gr.HTML()
    go.click(
        page.evaluate,
        [source, reference, pair],
        [scores, picture, worst],
        concurrency_limit=2,
        api_visibility="private",
        show_progress_on=scores,
    )
    pair.change(lambda: ("", gr.update(value=None, visible=False), ""), None, [scores, picture, worst], **QUIET)


def _about(page: Page, pair: gr.Dropdown, blocks: gr.Blocks) -> None:
    text = gr.Markdown()
    curves = gr.Image(
        show_label=False,
        interactive=False,
        visible=False,
        buttons=["download"],
        elem_classes="chart",
        alt_text="Loss and scores in the course of the training",
    )
    with gr.Accordion("The recipe", open=False):
        recipe = gr.Code(language="yaml", interactive=False, show_label=False)
    use = gr.Markdown()
    for event in (blocks.load, pair.change):
        event(page.about, pair, [text, curves, recipe, use], api_visibility="private", show_progress="hidden")


class OnlyHere:
    """Sends the page with a policy that keeps the browser from contacting any other host."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, sent if scope["type"] == "http" else send)


def serve(
    folders: Sequence[str],
    changes: Sequence[str],
    corrections: Path,
    host: str,
    port: int | None,
    credentials: Sequence[tuple[str, str]],
    share: bool,
) -> None:
    """Load the models and serve the page until it is stopped."""
    models = [Model.load(folder, changes) for folder in folders]
    spare_memory()
    with tempfile.TemporaryDirectory(prefix="nmt-") as scratch:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(scratch) / "uploads")
        blocks = build(Page(models, corrections, Path(scratch)))
        blocks.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
        _, url, shared = blocks.launch(
            server_name=host,
            server_port=port,
            auth=list(credentials) or None,
            share=share,
            allowed_paths=[scratch],
            max_file_size=LARGEST,
            quiet=True,
            prevent_thread_lock=True,
            max_threads=AT_ONCE + 8,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            css_paths=[HERE / "style.css"],
            theme=gr.themes.Base(font=FONTS, font_mono=MONO),
            app_kwargs={"middleware": [Middleware(OnlyHere)]},
        )
        say(f"open {shared or url} in a browser; Ctrl-C stops")
        try:
            Event().wait()  # the cli turns the signals that end it into an exit status
        finally:
            blocks.close(verbose=False)
            for model in models:
                model.service.close()
