"""OpenNMT-py under measurement: python opennmt.py FOLDER UPDATES THREADS [feeding] [medium].

Version 3.5.1 asks for torch below 2.3; installed without its dependencies it trains beside today's.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from meter import Meter

CONFIG = """
data:
  corpus: {{path_src: {folder}/train.en, path_tgt: {folder}/train.de, transforms: []}}
save_data: {out}
src_vocab: {folder}/vocabulary.opennmt
tgt_vocab: {folder}/vocabulary.opennmt
share_vocab: true
n_sample: 0
overwrite: true
num_workers: 0
bucket_size: 30000
batch_type: tokens
batch_size: 4096
batch_size_multiple: 1
normalization: tokens
train_steps: 100000
valid_steps: 100000
save_checkpoint_steps: 100000
save_model: {out}/model
report_every: 100000
seed: 1
world_size: 1
gpu_ranks: []
optim: adam
learning_rate: 0.001
max_grad_norm: 1.0
label_smoothing: 0.1
dropout: [0.3]
encoder_type: brnn
decoder_type: rnn
rnn_type: LSTM
enc_layers: 1
dec_layers: 1
hidden_size: 512
word_vec_size: 512
global_attention: general
input_feed: {feeding}
share_embeddings: true
share_decoder_embeddings: true
"""


def configured(folder: str, options: Sequence[str]) -> Path:
    """The configuration of the yardstick, as a file; also keeps this package quiet."""
    if "medium" in options:
        torch.set_float32_matmul_precision("medium")
    out = Path(folder) / "opennmt"
    out.mkdir(exist_ok=True)
    pieces = (Path(folder) / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[:-1]
    (Path(folder) / "vocabulary.opennmt").write_text("".join(f"{piece}\t1\n" for piece in pieces), encoding="utf-8")
    config = out / "config.yaml"
    config.write_text(CONFIG.format(folder=folder, out=out, feeding=int("feeding" in options)), encoding="utf-8")
    from onmt.utils import logging as theirs

    theirs.logger.setLevel(logging.CRITICAL)
    return config


def train(config: Path, tick: Callable[[Any, int], None]) -> None:
    """Train; `tick` is called after each update with their trainer and the target tokens so far."""
    from onmt import trainer
    from onmt.bin import train

    def report(self: Any, step: int, steps: int, rate: float, stats: Any) -> Any:
        tick(self, stats.n_words)
        return stats

    trainer.Trainer._maybe_report_training = report
    options, _ = train._get_parser().parse_known_args(["--config", str(config)])
    train.train(options)


def main() -> None:
    folder, updates, threads, *options = sys.argv[1:]
    torch.set_num_threads(int(threads))
    meter = Meter(int(updates))
    train(configured(folder, options), lambda _, tokens: meter.tick(tokens))


if __name__ == "__main__":
    main()
