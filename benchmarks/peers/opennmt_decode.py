"""OpenNMT-py translating under measurement: python opennmt_decode.py FOLDER UPDATES THREADS BEAM [feeding] [medium].

Version 3.5.1 reads its own checkpoints with `torch.load`, which today refuses them unless told that they are trusted.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import opennmt
import torch
from meter import tell_decoding, train_until


def main() -> None:
    folder, updates, threads, beam, *options = sys.argv[1:]
    torch.set_num_threads(int(threads))
    config = opennmt.configured(folder, options)
    model = Path(folder) / "opennmt" / f"model_step_{updates}.pt"
    if not model.exists():
        train_until(
            int(updates),
            lambda tick: opennmt.train(config, tick),
            lambda trainer, _: trainer.model_saver.save(int(updates)),
        )
    torch.load = functools.partial(torch.load, weights_only=False)  # type: ignore[assignment]
    from onmt.bin.translate import _get_parser
    from onmt.inference_engine import InferenceEnginePY
    from onmt.utils.parse import ArgumentParser

    arguments = ["--model", str(model), "--src", f"{folder}/test.en", "--output", "/dev/null", "--gpu", "-1"]
    arguments += ["--beam_size", beam, "--batch_size", "64", "--batch_type", "sents", "--max_length", "60"]
    given = _get_parser().parse_args(arguments)
    ArgumentParser.validate_translate_opts(given)
    ArgumentParser._get_all_transform_translate(given)
    ArgumentParser._validate_transforms_opts(given)
    ArgumentParser.validate_translate_opts_dynamic(given)
    engine = InferenceEnginePY(given)

    def decode() -> list[list[str]]:
        _, found = engine.infer_file()
        return [best[0].split() for best in found]

    tell_decoding(decode, Path(folder) / f"opennmt-beam{beam}.txt")


if __name__ == "__main__":
    main()
