"""Joey NMT under measurement: python joey.py FOLDER UPDATES THREADS [feeding] [medium].

What version 2.3.0 needs to run beside today's torch: `ReduceLROnPlateau` no longer takes `verbose`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from meter import Meter

CONFIG = """
name: yardstick
model_dir: {out}
use_cuda: false
random_seed: 1
data:
  train: {folder}/train
  dev: {folder}/valid
  dataset_type: plain
  src: {{lang: en, level: word, voc_file: {folder}/vocabulary.txt, max_length: 128, lowercase: false}}
  trg: {{lang: de, level: word, voc_file: {folder}/vocabulary.txt, max_length: 128, lowercase: false}}
testing: {{n_best: 1, beam_size: 1, batch_size: 64, batch_type: sentence, eval_metrics: [bleu]}}
training:
  optimizer: adam
  learning_rate: 0.001
  scheduling: plateau
  loss: crossentropy
  normalization: tokens
  label_smoothing: 0.1
  clip_grad_norm: 1.0
  batch_size: 4096
  batch_type: token
  epochs: 1
  validation_freq: 100000
  logging_freq: 1
  overwrite: true
  shuffle: true
  num_workers: 0
  print_valid_sents: []
  keep_best_ckpts: 0
model:
  initializer: xavier_uniform
  tied_embeddings: true
  tied_softmax: true
  encoder: {{type: recurrent, rnn_type: lstm, embeddings: {{embedding_dim: 512, dropout: 0.3}}, hidden_size: 256,
             bidirectional: true, dropout: 0.3, num_layers: 1}}
  decoder: {{type: recurrent, rnn_type: lstm, embeddings: {{embedding_dim: 512, dropout: 0.3}}, hidden_size: 512,
             dropout: 0.3, hidden_dropout: 0.3, num_layers: 1, input_feeding: {feeding}, init_hidden: bridge,
             attention: luong}}
"""


def configured(folder: str, options: Sequence[str], name: str = "joey") -> dict[str, Any]:
    """The configuration of the yardstick, its model in a folder of that name.

    Also mends what keeps this version from running, and keeps it quiet.
    """
    if "medium" in options:
        torch.set_float32_matmul_precision("medium")
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau

    class Plateau(plateau):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, verbose: bool = False, **more: Any) -> None:
            super().__init__(*arguments, **more)

    torch.optim.lr_scheduler.ReduceLROnPlateau = Plateau
    logging.disable(logging.CRITICAL)
    out = Path(folder) / name
    out.mkdir(exist_ok=True)
    config: dict[str, Any] = yaml.safe_load(CONFIG.format(folder=folder, out=out, feeding="feeding" in options))
    return config


def train(config: dict[str, Any], tick: Callable[[Any], None]) -> None:
    """Train; `tick` is called after each update with their trainer."""
    from joeynmt import training

    def log(self: Any, *arguments: Any) -> None:
        tick(self)

    training.TrainManager._log_scores = log
    training.train(rank=0, world_size=None, cfg=config)


def main() -> None:
    folder, updates, threads, *options = sys.argv[1:]
    torch.set_num_threads(int(threads))
    meter = Meter(int(updates))
    train(configured(folder, options), lambda trainer: meter.tick(trainer.stats.total_tokens))


if __name__ == "__main__":
    main()
