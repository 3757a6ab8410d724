"""Compares encoders under one head: the served compact one, the published model, and the latter with a trained adapter.

The adapter is a low-rank one (LoRA) on the attention and the first feed-forward matrix of every layer. It is trained on the
seed corpus, by a supervised contrastive loss over techniques and a classification loss, and merged into the weights. Then
each encoder's windows go through the same head, linear over rows as they are written, which is measured on the strict rows
of a file of labelled prompts. Nothing of that file is trained on. Needs the train extra (torch), and takes long, as both full
encoders read the corpus and the rows; --share and --sample take a part.

Run:  .venv-train/bin/python benchmarks/adapter.py prompts.jsonl.gz
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from heads import asked_of_file, figures, linear_head, part_of, scored, with_structure
from numpy.typing import NDArray
from reference import load_sentence_transformer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from classifier.bundle import open_bundle
from classifier.config import Settings
from classifier.corpus import SeedRow, load_corpus
from classifier.encoder import Encoder, OnnxEncoder
from classifier.export.graph import fp32_graph
from classifier.export.weights import obtain
from classifier.train.features import cut_windows, labels_of, targets_of
from classifier.train.material import gather
from classifier.windows import WindowPlan

RANK = 8
SCALE = 2.0
LONGEST = 96
"""Tokens of a row's first window that the adapter is trained on."""
BATCH = 48
TEMPERATURE = 0.1
RATE = 4e-4
HALF = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
"""Where the processor does not know bfloat16, imitating it would cost more than it saves."""
MATRICES = ("attention.self.query", "attention.self.value", "attention.output.dense", "intermediate.dense")


class LowRank(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """Adds a product of two thin matrices to a weight."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(RANK, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, RANK))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        return weight + SCALE * self.up @ self.down


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("file", type=Path, help="labelled prompts, as `stillwatch evaluate` reads them")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the corpus' domains, to be quicker (default: 1)")
    parser.add_argument("--sample", type=int, default=3_000, help="strict rows of the file, drawn at random (3,000)")
    given = parser.parse_args()
    settings, rows = Settings(), part_of(load_corpus(), given.share)
    published = obtain(settings.model_cache)
    plain = OnnxEncoder(fp32_graph(published.tensors), published.tokenizer, threads=2)
    started = time.perf_counter()
    layers = adapted(rows, plain, given.epochs)
    minutes = (time.perf_counter() - started) / 60
    tensors = {**published.tensors, **layers}
    encoders: dict[str, Encoder] = {
        "compact, int8 (shipped)": open_bundle(settings.bundle, threads=2).model.encoder,
        "published": plain,
        f"published + adapter ({minutes:.0f} minutes)": OnnxEncoder(
            fp32_graph(tensors), published.tokenizer, threads=2
        ),
    }
    print(
        f"Extraction AUROC, recall at 1 % and at 0.1 % false positives on strict rows, at most {given.sample:,} of them; "
        f"{len(rows):,} seed rows; windows a second, neighbours included."
    )
    print("\n| encoder | strict rows | windows/s |\n|---|---|---:|")
    for name, encoder in encoders.items():
        print(f"| {name} | {_measured(rows, encoder, given.file, given.sample)} |", flush=True)


def adapted(rows: list[SeedRow], encoder: OnnxEncoder, epochs: int) -> dict[str, NDArray[np.float32]]:
    """Train the adapter and merge it.

    Args:
        rows: The seed corpus.
        encoder: Its tokenizer and frame.
        epochs: Passes over the rows' windows.

    Returns:
        The adapted matrices by their published names.
    """
    torch.manual_seed(0)
    model = load_sentence_transformer()[0].auto_model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    touched = {name: part for name, part in model.named_modules() if name.endswith(MATRICES)}
    for part in touched.values():
        parametrize.register_parametrization(part, "weight", LowRank(*part.weight.shape))
    targets = targets_of(rows, labels_of(rows))
    windows = cut_windows([row.example.text for row in rows], encoder, WindowPlan())
    framed = [encoder.framed(windows.sequences[number][: LONGEST - 2]) for number in windows.first]
    classes = torch.tensor(targets.techniques + 1)
    head = nn.Linear(384, 1 + int(classes.max()))
    trained = [*(p for p in model.parameters() if p.requires_grad), *head.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
    steps = epochs * (len(framed) // BATCH + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + epochs)
    for epoch in range(epochs):
        losses = []
        for chosen in _batches(framed, np.random.default_rng(epoch)):
            with torch.autocast("cpu", torch.bfloat16, enabled=HALF):
                vectors = _embedded(model, [framed[number] for number in chosen])
            loss = _loss(vectors.float(), head(vectors.float()), classes[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}", file=sys.stderr, flush=True)
    for part in touched.values():
        parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
    return {f"{name}.weight": part.weight.detach().numpy().astype(np.float32) for name, part in touched.items()}


def _batches(framed: list[list[int]], random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Batches of windows of about one length, in random order."""
    order = random.permutation(len(framed))
    pools = [order[start : start + 16 * BATCH] for start in range(0, len(order), 16 * BATCH)]
    sorted_pools = [pool[np.argsort([len(framed[number]) for number in pool], kind="stable")] for pool in pools]
    batches = [pool[start : start + BATCH] for pool in sorted_pools for start in range(0, len(pool), BATCH)]
    for number in random.permutation(len(batches)):
        if len(batches[number]) > 1:
            yield batches[number]


def _embedded(model: nn.Module, framed: list[list[int]]) -> Tensor:
    """(n, 384) unit rows."""
    longest = max(map(len, framed))
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in framed])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in framed])
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    return functional.normalize(states.sum(1) / mask.sum(1, keepdim=True), dim=1)


def _loss(vectors: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
    """Classification over techniques and benign, and nearness of the same class in the batch."""
    near = vectors @ vectors.T / TEMPERATURE
    own = torch.eye(len(classes), dtype=torch.bool)
    same = (classes[:, None] == classes[None]) & ~own
    spread = near - torch.logsumexp(near.masked_fill(own, -1e9), dim=1, keepdim=True)
    counts = same.sum(1)
    held = counts > 0
    contrast = -(spread * same).sum(1)[held] / counts[held]
    weights = torch.ones(logits.shape[1])
    weights[0] = 0.3  # half of all windows are benign
    return functional.cross_entropy(8 * logits, classes, weight=weights) + 0.5 * contrast.mean()


def _measured(rows: list[SeedRow], encoder: Encoder, file: Path, sample: int) -> str:
    material = with_structure(gather(rows, encoder, WindowPlan(), changed=lambda *_: []), rows)
    started = time.perf_counter()
    asked, truth = asked_of_file(file, material, rows, encoder, WindowPlan(), sample=sample)
    rate = len(asked.owners) / (time.perf_counter() - started)
    return f"{figures(scored(linear_head(material.learnt, encoder.dimensions), asked), truth)} | {rate:.0f}"


if __name__ == "__main__":
    main()
