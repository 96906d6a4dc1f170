"""Translation as a job for `run`: material, model, loss, validation by translation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nmt import checkpoint
from nmt.data import Batch
from nmt.errors import CallError
from nmt.group import ALONE, Group
from nmt.hardware import Hardware
from nmt.job import Job
from nmt.loss import Loss, Taught
from nmt.material import SOURCE, TARGET, Material, TrainingStream, gather, inherited, load_split, overlaps, warn_of
from nmt.model import Seq2Seq, build, sizes
from nmt.recipe import Recipe, TranslationTraining
from nmt.tokenizer import Tokenizer
from nmt.translate import Member
from nmt.validation import Validation


def job(recipe: Recipe, hardware: Hardware, folder: Path | None, group: Group = ALONE) -> Job[Batch]:
    """Everything to train a recipe; `folder` is that of a run that is resumed, whose tokenizers stay."""
    settings = recipe.training
    parent = Path(settings.init_from) if settings.init_from else None
    material = _shared(recipe, inherited(recipe, folder) if group.first else None, group)
    if recipe.model.tie == "all" and material.source.fingerprint != material.target.fingerprint:
        origin = folder or settings.init_from or settings.teacher
        raise CallError(
            f"model.tie=all needs one vocabulary for both sides, those of {origin} are two: set model.tie to target"
        )
    teachers = _teachers(checkpoint.split(settings.teacher) if settings.teacher else [], material, hardware)
    torch.manual_seed(settings.seed)
    model = build(recipe, material.source.vocab, material.target.vocab).to(hardware.device)
    if parent and not folder:
        checkpoint.restore(model, checkpoint.read(parent).weights(), parent)

    def loss(batch: Batch, progress: float) -> Loss:
        taught = None
        if teachers:
            meant = torch.stack([teacher.probabilities(batch) for teacher in teachers]).mean(0)  # (N, V)
            taught = Taught(meant, settings.teacher_share)
        guidance = settings.guided_attention * (1 - progress)
        share = forcing(settings, progress)
        return model.loss(batch, settings.label_smoothing, share, taught, guidance)

    pieces, padding = int(material.train.target_lengths.sum()), material.batches.padding(0)
    filtered = material.filtered
    passed = f"; {filtered}" if filtered.kept < filtered.total else ""
    return Job(
        model,
        TrainingStream(material, settings, hardware.device, group),
        loss,
        Validation(model, material, recipe, hardware),
        {
            "parameters": sizes(model),
            "vocabulary": {"source": material.source.vocab, "target": material.target.vocab},
            "data": _data(recipe, material),
        },
        {SOURCE: material.source.proto, TARGET: material.target.proto},
        f"{len(material.train):,} training pairs, {pieces:,} target pieces, padding {padding:.1%}{passed}",
    )


def _teachers(folders: Sequence[Path], material: Material, hardware: Hardware) -> list[Seq2Seq]:
    """The models that `training.teacher` names. Raises CallError for those that cannot teach this one."""
    found = []
    for folder in folders:
        member = Member.load(checkpoint.read(folder), hardware)
        if not isinstance(member.model, Seq2Seq):
            raise CallError(f"training.teacher: {folder} is an exported translator: name the run that it comes from")
        sides = (member.source, material.source), (member.target, material.target)
        if any(one.fingerprint != other.fingerprint for one, other in sides):
            raise CallError(
                f"training.teacher: {folder} writes other pieces than the model that is to learn from it: "
                f"name teachers of the same pieces, and train the student anew"
            )
        found.append(member.model.requires_grad_(False))
    return found


def _shared(recipe: Recipe, known: tuple[Tokenizer, Tokenizer] | None, group: Group) -> Material:
    """The material of a recipe, which the first process of a group prepares for all."""
    material = gather(recipe, known) if group.first else None
    protos = group.same((material.source.proto, material.target.proto) if material else (b"", b""))
    return material or gather(recipe, (Tokenizer(protos[0]), Tokenizer(protos[1])))


def _data(recipe: Recipe, material: Material) -> dict[str, Any]:
    """What model.json says of the data; warns of test sentences that were trained on."""
    seen = overlaps(recipe, material.corpus, material.valid)
    warn_of(seen)
    return {
        "train": len(material.train),
        "valid": len(material.valid),
        "text of train": material.corpus.digest,
        "text of valid": material.valid.digest,
        "filtered": asdict(material.filtered),
        "overlap": {part: asdict(found) for part, found in seen.items()},
        "pieces": {
            "source": int(material.train.source_lengths.sum()),
            "target": int(material.train.target_lengths.sum()),
        },
        "padding": round(material.batches.padding(0), 4),
        **({"held_out": load_split(recipe.data, "test").digest} if recipe.data.hold_out else {}),
    }


def forcing(settings: TranslationTraining, progress: float) -> float:
    """The share of gold previous words, from 1 at the start to `teacher_forcing` at the end (Bengio et al. 2015)."""
    last = settings.teacher_forcing
    if settings.teacher_forcing_schedule == "constant":
        return last
    if settings.teacher_forcing_schedule == "linear":
        return 1 - (1 - last) * progress
    k = 0.1  # steepness: the middle of training has the middle of the two ratios
    return last + (1 - last) / (1 + math.exp((progress - 0.5) / k))
