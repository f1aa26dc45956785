"""Fine-tune a small transformer on the training sets of a plan: `python -m evals.classifiers.finetune --plan P --output O`.

It needs torch, transformers and NumPy, and nothing of the product, so that a plan can be carried to a machine with a GPU. The
output is written after every job; run again, it goes on after the last.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evals.classifiers.quality import METRICS

_SCORED_AT_ONCE = 128
_WARM_UP = 0.1
_WEIGHT_DECAY = 0.01


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained; one recipe for all training sets."""

    n_steps: int
    """Batches, whatever the number of rows: in epochs, few rows would get few steps, and lose for that alone."""
    batch_size: int = 16
    learning_rate: float = 1e-4
    """Its peak, after a tenth of the steps; then down to 0 in a line."""
    max_tokens: int = 64
    n_trained_layers: int | None = None
    """Layers that are trained, from the top, besides the head; None for all, embeddings included."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training set."""

    id: str
    rows: list[int]
    """Of the plan's texts; a row may come more than once."""
    labels: list[int]
    weights: list[float]
    """Of the rows' losses; only their ratios count."""
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Training sets that share their texts and their test rows."""

    n_labels: int
    texts: list[str]
    test_texts: list[str]
    test_labels: list[int]
    recipe: Recipe
    jobs: list[Job] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """16 hex digits of everything but the list of jobs: each job has its own digest in its id's entry."""
        return _digest([self.n_labels, self.texts, self.test_texts, self.test_labels, asdict(self.recipe)])

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read what `save` wrote."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        recipe, jobs = Recipe(**fields.pop("recipe")), [Job(**job) for job in fields.pop("jobs")]
        return cls(**fields, recipe=recipe, jobs=jobs)


def carry_out(
    plan: Plan, output: Path, model: str, device: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, dict[str, float]]:
    """Train and score every job that the output does not have yet.

    Args:
        plan: what to train.
        output: JSON with what is done; results of another plan, or of a job that changed, are not taken.
        model: folder or id of a BERT-like encoder.
        device: of torch.
        progress: told (jobs done, jobs).

    Returns:
        job id -> metrics on the test rows, and `seconds`.
    """
    done = finished(plan, output)
    progress(len(done), len(plan.jobs))
    todo = [job for job in plan.jobs if job.id not in done]
    if not todo:
        return done
    trainer = Trainer(plan, model, device)
    known = {job.id: _digest(asdict(job)) for job in plan.jobs}
    for job in todo:
        started = time.perf_counter()
        probabilities = trainer.train(job)
        labels = np.array(plan.test_labels)
        done[job.id] = {name: score(probabilities, labels) for name, score in METRICS.items()}
        done[job.id]["seconds"] = round(time.perf_counter() - started, 2)
        entries = {id: {"job": known[id], **scores} for id, scores in done.items()}
        _write(output, {"plan": plan.digest, "device": trainer.device_name, "jobs": entries})
        progress(len(done), len(plan.jobs))
    return done


def finished(plan: Plan, output: Path) -> dict[str, dict[str, float]]:
    """Return the scores that an output has for the jobs of a plan, as they are in the plan."""
    if not output.exists():
        return {}
    found = json.loads(output.read_text(encoding="utf-8"))
    if found["plan"] != plan.digest:
        return {}
    known = {job.id: _digest(asdict(job)) for job in plan.jobs}
    return {
        id: {name: value for name, value in entry.items() if name != "job"}
        for id, entry in found["jobs"].items()
        if known.get(id) == entry["job"]
    }


class Trainer:
    """A pretrained encoder and the tokens of a plan."""

    def __init__(self, plan: Plan, model: str, device: str) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # has no annotations
        self._plan, self._device = plan, torch.device(device)
        self._encoder = AutoModel.from_pretrained(model).to(self._device)
        self._pretrained = {name: value.clone() for name, value in self._encoder.state_dict().items()}
        tokenizer = AutoTokenizer.from_pretrained(model)
        self._pad = int(tokenizer.pad_token_id or 0)

        def tokens_of(texts: list[str]) -> list[list[int]]:
            tokens: list[list[int]] = tokenizer(texts, truncation=True, max_length=plan.recipe.max_tokens)["input_ids"]
            return tokens

        self._tokens, self._test_tokens = tokens_of(plan.texts), tokens_of(plan.test_texts)
        self._freeze(plan.recipe.n_trained_layers)

    @property
    def device_name(self) -> str:
        """Name what the models are trained on."""
        return torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else self._device.type

    def train(self, job: Job) -> NDArray[np.float64]:
        """Train from the pretrained weights; return the (t, L) probabilities of the labels of the test rows."""
        recipe = self._plan.recipe
        torch.manual_seed(job.seed)
        self._encoder.load_state_dict(self._pretrained)
        head = nn.Linear(self._encoder.config.hidden_size, self._plan.n_labels).to(self._device)
        trained = [value for value in (*self._encoder.parameters(), *head.parameters()) if value.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe.n_steps))
        labels = torch.tensor(job.labels, device=self._device)
        weights = torch.tensor(job.weights, dtype=torch.float32, device=self._device)
        weights = weights / weights.mean()
        self._encoder.train()
        for batch in _batches(len(job.rows), recipe, np.random.default_rng(job.seed)):
            logits = head(self._embed([self._tokens[job.rows[place]] for place in batch]))
            losses = nn.functional.cross_entropy(logits, labels[batch], reduction="none")
            (losses * weights[batch]).mean().backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return self._predict(head)

    @torch.no_grad()
    def _predict(self, head: nn.Linear) -> NDArray[np.float64]:
        self._encoder.eval()
        # By length, so that little is padding.
        order = sorted(range(len(self._test_tokens)), key=lambda row: len(self._test_tokens[row]))
        probabilities = np.zeros((len(order), self._plan.n_labels))
        for start in range(0, len(order), _SCORED_AT_ONCE):
            rows = order[start : start + _SCORED_AT_ONCE]
            logits = head(self._embed([self._test_tokens[row] for row in rows]))
            probabilities[rows] = torch.softmax(logits.double(), dim=1).cpu().numpy()
        return probabilities

    def _embed(self, tokens: list[list[int]]) -> torch.Tensor:
        """Return the mean of each text's last hidden states (b, d), as the sentence encoder pools them."""
        longest = max(len(row) for row in tokens)
        padded = torch.tensor([row + [self._pad] * (longest - len(row)) for row in tokens], device=self._device)
        lengths = torch.tensor([len(row) for row in tokens], device=self._device)
        mask = torch.arange(longest, device=self._device)[None] < lengths[:, None]
        hidden: torch.Tensor = self._encoder(input_ids=padded, attention_mask=mask.long()).last_hidden_state
        return (hidden * mask[:, :, None]).sum(dim=1) / lengths[:, None]

    def _freeze(self, n_trained_layers: int | None) -> None:
        if n_trained_layers is None:
            return
        self._encoder.requires_grad_(False)
        layers = self._encoder.encoder.layer
        for layer in layers[len(layers) - n_trained_layers :]:
            layer.requires_grad_(True)


def _batches(n: int, recipe: Recipe, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yield batches of places in [0, n), epoch after epoch; the last batch of an epoch goes on with the next."""
    waiting: list[int] = []
    for _ in range(recipe.n_steps):
        while len(waiting) < recipe.batch_size:
            waiting += rng.permutation(n).tolist()
        yield waiting[: recipe.batch_size]
        waiting = waiting[recipe.batch_size :]


def _rate(step: int, n_steps: int) -> float:
    warm_up = max(1, math.ceil(_WARM_UP * n_steps))
    return (step + 1) / warm_up if step < warm_up else (n_steps - step) / max(1, n_steps - warm_up)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _write(path: Path, value: Any) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)


def main() -> None:
    """Carry out a plan."""
    parser = argparse.ArgumentParser(description="Fine-tune a small transformer on the training sets of a plan.")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="folder or id")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    plan = Plan.load(arguments.plan)
    carry_out(
        plan, arguments.output, arguments.model, arguments.device, lambda done, total: print(f"{done} of {total}")
    )


if __name__ == "__main__":
    main()
