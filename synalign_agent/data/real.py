"""The real rows of a session with their vectors: what the nodes explore, fit to and score on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from synalign_agent.core.alignment import Rows
from synalign_agent.records import RealRow


@dataclass(frozen=True)
class RealData:
    """Real rows, in store order, and their unit-norm embeddings."""

    rows: Sequence[RealRow]
    X: NDArray[np.float32]
    """(n, d)"""
    labels: tuple[str, ...] = field(init=False)
    """Label names in sorted order; codes index into it."""
    codes: NDArray[np.int64] = field(init=False)
    held_out: NDArray[np.bool_] = field(init=False)
    position: Mapping[str, int] = field(init=False)
    """Row id -> position."""

    def __post_init__(self) -> None:
        labels = tuple(sorted({row.label for row in self.rows}))
        code_of = {label: code for code, label in enumerate(labels)}
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "codes", np.array([code_of[row.label] for row in self.rows], dtype=np.int64))
        object.__setattr__(self, "position", {row.id: place for place, row in enumerate(self.rows)})
        object.__setattr__(self, "held_out", np.array([row.split == "holdout" for row in self.rows]))

    def texts(self, ids: Sequence[str]) -> list[str]:
        """Return the texts of these row ids."""
        return [self.rows[self.position[id]].text for id in ids]

    def everything(self) -> Rows:
        """Return all rows."""
        return self._rows(np.ones(len(self.rows), dtype=bool))

    def reference(self) -> Rows:
        """Return the rows that are explored and fitted to."""
        return self._rows(~self.held_out)

    def reference_rows(self, code: int) -> NDArray[np.int64]:
        """Return the positions of a label's reference rows."""
        found: NDArray[np.int64] = np.flatnonzero(~self.held_out & (self.codes == code))
        return found

    def scoring(self) -> Rows:
        """Return the rows that `scores`."""
        return self._rows(self.scores)

    @property
    def scores(self) -> NDArray[np.bool_]:
        """(n,) which rows score: the hold-out, and the reference rows of labels that have none."""
        without: NDArray[np.bool_] = ~np.isin(self.codes, self.codes[self.held_out])
        return self.held_out | without

    @property
    def scored_on(self) -> str:
        """`holdout`, `reference` (no label has a hold-out) or `mixed`."""
        if not self.held_out.any():
            return "reference"
        return "holdout" if len(set(self.codes[self.held_out])) == len(self.labels) else "mixed"

    def prior(self) -> NDArray[np.float64]:
        """Return the label shares of all real rows."""
        shares: NDArray[np.float64] = np.bincount(self.codes, minlength=len(self.labels)) / len(self.rows)
        return shares

    def _rows(self, keep: NDArray[np.bool_]) -> Rows:
        return Rows(self.X[keep], self.codes[keep])
