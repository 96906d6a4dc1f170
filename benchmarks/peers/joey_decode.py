"""Joey NMT translating under measurement: python joey_decode.py FOLDER UPDATES THREADS BEAM [feeding] [medium]."""

from __future__ import annotations

import sys
from pathlib import Path

import joey
import torch
from meter import tell_decoding, train_until


def main() -> None:
    folder, updates, threads, beam, *options = sys.argv[1:]
    torch.set_num_threads(int(threads))
    config = joey.configured(folder, options, f"joey-trained-{updates}")
    if not (Path(config["model_dir"]) / "latest.ckpt").exists():
        train_until(
            int(updates),
            lambda tick: joey.train(config, tick),
            lambda trainer: trainer._save_checkpoint(False, 0.0),
        )
    config["data"]["dev"], config["data"]["test"] = None, f"{folder}/test"
    config["testing"] |= {"beam_size": int(beam), "beam_alpha": 1.0, "max_output_length": 60}
    from joeynmt import prediction
    from joeynmt.config import parse_global_args

    args = parse_global_args(config, rank=0, mode="test")
    model, _, _, test = prediction.prepare(args, rank=0, mode="test")

    def decode() -> list[list[str]]:
        found = prediction.predict(
            model=model, data=test, device=args.device, n_gpu=0, args=args.test, autocast=args.autocast
        )
        raw: list[list[str]] = found[3]
        return raw

    tell_decoding(decode, Path(folder) / f"joey-beam{beam}.txt")


if __name__ == "__main__":
    main()
