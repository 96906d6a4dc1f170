"""The translator as a network: encoder, bridge, decoder. And `build`, the one place where a recipe meets modules.

    Context = encoder(source);  h₀ = bridge(Context.final);  p(y_t | y_<t, source) = decoder(y_{t-1}, state)

Letters: B batch, S source length, T target length, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.cells import Shares
from nmt.context import Bridge
from nmt.data import Batch
from nmt.decoder import Decoder, State
from nmt.encoder import Encoder
from nmt.loss import Loss, Taught, linear_cross_entropy
from nmt.recipe import Recipe
from nmt.stepper import unroll
from nmt.tokenizer import PAD

LEAST = 1e-6  # of a weight of attention, so that its logarithm is finite


class Seq2Seq(nn.Module):
    """An encoder and a decoder with separate weights, joined by a bridge."""

    def __init__(self, encoder: Encoder, bridge: Bridge, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.bridge = bridge
        self.decoder = decoder

    def start(self, source: Tensor, lengths: Tensor) -> State:
        """The decoder's state before the first piece, for sources (B, S)."""
        context = self.encoder(source, lengths)
        return self.decoder.start(self.bridge(context.final), context)

    def loss(
        self,
        batch: Batch,
        smoothing: float = 0.0,
        forcing: float = 1.0,
        taught: Taught | None = None,
        guidance: float = 0.0,
    ) -> Loss:
        """The loss of a batch.

        `forcing`: share of gold previous words (scheduled sampling, Bengio et al. 2015). `taught`: what a teacher makes
        of it, as `probabilities` of that. `guidance`: the weight of attention agreeing with the batch's alignment (Chen
        et al. 2016).
        """
        state = self.start(batch.source, batch.source_lengths)
        if forcing < 1:
            features, attention = self._scheduled(batch.target_in, state, forcing)
        else:
            features, attention = self._features(batch.target_in, state)  # (B, T, E), (B, T, S)
        real = batch.target_out != PAD
        loss = linear_cross_entropy(features[real], self.decoder.output, batch.target_out[real], smoothing, taught)
        if guidance and batch.alignment is not None and attention is not None:
            apart = -(batch.alignment * attention.float().clamp_min(LEAST).log()).sum()
            loss = replace(loss, total=loss.total + guidance * apart)
        return loss

    def _features(self, tokens: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        """Features (B, T, E) of the pieces that follow `tokens` (B, T), and the weights of attention (B, T, S)."""
        if self.decoder.input_feeding:
            return unroll(self.decoder, tokens, state)
        features, state = self.decoder.features(tokens, state)
        return features, state.attention

    def _scheduled(self, tokens: Tensor, state: State, forcing: float) -> tuple[Tensor, Tensor | None]:
        """The same where each previous word is gold with probability `forcing`, else the model's own."""
        outs, weights = [], []
        token = tokens[:, :1]
        for step in range(tokens.size(1)):
            out, state = self.decoder.features(token, state)
            outs.append(out)
            weights += [] if state.attention is None else [state.attention]
            if step + 1 < tokens.size(1):
                own = self.decoder.output(out.detach()).argmax(2)  # (B, 1)
                gold = torch.rand(own.shape, device=own.device) < forcing
                token = torch.where(gold, tokens[:, step + 1 : step + 2], own)
        return torch.cat(outs, dim=1), torch.cat(weights, dim=1) if weights else None

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """What the output layer takes at each target position of a batch, (B, T, E)."""
        return self._features(batch.target_in, self.start(batch.source, batch.source_lengths))[0]

    @torch.no_grad()
    def probabilities(self, batch: Batch) -> Tensor:
        """What the model would write at each real target position of a batch, (N, V)."""
        features = self.features(batch)
        return self.decoder.output(features[batch.target_out != PAD]).float().softmax(1)  # type: ignore[no-any-return]

    def log_probs(self, batch: Batch) -> Tensor:
        """log p of each target piece by forced decoding, (B, T), 0 on padding."""
        logits, _ = self.decoder(batch.target_in, self.start(batch.source, batch.source_lengths))
        gold = -F.cross_entropy(logits.float().transpose(1, 2), batch.target_out, reduction="none")
        return gold.masked_fill(batch.target_out == PAD, 0.0)


def build(recipe: Recipe, source_vocab: int, target_vocab: int) -> Seq2Seq:
    """The network of a recipe, freshly initialised. Raises ValueError where its parts do not fit."""
    model = recipe.model
    dropout = Shares(**model.dropout.model_dump())
    encoder = Encoder(
        source_vocab,
        model.embed,
        model.encoder.hidden,
        model.encoder.layers,
        model.encoder_cell,
        model.encoder.direction,
        model.encoder.summary,
        model.residual,
        dropout,
        model.encoder.shortcut,
    )
    decoder = Decoder(
        target_vocab,
        model.embed,
        model.decoder.hidden,
        model.decoder.layers,
        model.decoder_cell,
        encoder.width,
        model.attention,
        model.attention_position,
        model.input_feeding,
        model.context_feeding,
        model.residual,
        model.tie != "none",
        dropout,
    )
    bridge = Bridge(
        model.bridge,
        (model.encoder_cell, model.decoder_cell),
        (model.encoder.layers, model.decoder.layers),
        (encoder.final_width, model.decoder.hidden),
    )
    if model.tie == "all":
        decoder.embedding.weight = encoder.embedding.weight
        decoder.output.weight = encoder.embedding.weight
    return Seq2Seq(encoder, bridge, decoder)


def sizes(model: nn.Module) -> dict[str, int]:
    """Parameters of each part; what is shared counts once, where it comes first."""
    seen: set[int] = set()
    counts: dict[str, int] = {}
    for name, part in model.named_children():
        fresh = [weight for weight in part.parameters() if id(weight) not in seen]
        seen.update(id(weight) for weight in fresh)
        counts[name] = sum(weight.numel() for weight in fresh)
    return counts
