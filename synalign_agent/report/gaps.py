"""The gap map of a session: kinds of real rows that the dataset lacks, each with the command that writes more of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synalign_agent.config import SessionConfig
from synalign_agent.core.alignment import Rows
from synalign_agent.core.arrays import FloatArray, IntArray
from synalign_agent.core.gap_map import Gap, gap_map, region_count
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.strata import some_of_strata
from synalign_agent.data.measure import label_prior, session_kernel
from synalign_agent.data.real import RealData
from synalign_agent.report.commands import fork_command, resume_command
from synalign_agent.stores.vectors import kmeans_medoids

_STREAM = 7
_MOST_ROWS = 20_000
"""Of reference and of scoring rows: the regions are coarse, and more rows would move no line of the list."""


def session_gaps(
    config: SessionConfig, real: RealData, pool: Rows, copies: NDArray[np.int64], *, folder: Path, n_rounds: int
) -> list[dict[str, Any]]:
    """List the regions of real rows with less mass in the dataset than in the real data, the largest first.

    Args:
        config: the session's configuration.
        real: its real rows.
        pool: embedded pool rows with label codes.
        copies: (m,) how often each is in the dataset.
        folder: the session's folder; the commands name it.
        n_rounds: finished rounds.

    Returns:
        Plain JSON values: `label`, `size` (scoring rows in the region), `mass`, `synthetic_mass`, `pool_mass` (shares of all
        rows), `noise` (standard error of the difference of the first two if both were real samples), `z`, `witness`,
        `examples` [{`id`, `text`}] (reference rows), and `command`.
    """
    rng = np.random.default_rng([config.seed, _STREAM])
    places, scoring_places = (
        all_places[some_of_strata(real.codes[all_places], _MOST_ROWS, rng)]
        for all_places in (np.flatnonzero(~real.held_out), np.flatnonzero(real.scores))
    )
    reference = Rows(real.X[places], real.codes[places])
    scoring = Rows(real.X[scoring_places], real.codes[scoring_places])
    found = find_gaps(
        reference,
        scoring,
        pool,
        copies,
        session_kernel(config, real),
        prior=label_prior(config, real),
        seed=config.seed,
    )
    described = []
    for number, gap in enumerate(found, start=1):
        examples = [real.rows[place] for place in places[list(gap.examples)].tolist()]
        described.append(
            {
                **measured_gap(gap, real.labels),
                "noise": (gap.mass - gap.synthetic_mass) / gap.z,
                "examples": [{"id": row.id, "text": row.text} for row in examples],
                "command": _command(folder, number, n_rounds, [row.id for row in examples]),
            }
        )
    return described


def find_gaps(
    reference: Rows, scoring: Rows, pool: Rows, copies: IntArray, kernel: Kernel, *, prior: FloatArray, seed: int
) -> list[Gap]:
    """Map the gaps over k-means regions of each label's reference rows, as many as its scoring rows can tell apart.

    Args:
        reference: real rows that the regions are drawn around.
        scoring: real rows that the masses are counted on.
        pool: synthetic rows.
        copies: (m,) how often each is in the dataset.
        kernel: of the witness.
        prior: (L,) label masses, sum 1.
        seed: of k-means.
    """
    centres: list[int] = []
    for label in np.unique(scoring.label).tolist():
        rows = np.flatnonzero(reference.label == label)
        n_regions = region_count(int((scoring.label == label).sum()))
        centres += rows[kmeans_medoids(reference.X[rows], n_regions, seed)].tolist()
    return gap_map(reference, scoring, pool, copies, centres, kernel, prior=prior)


def measured_gap(gap: Gap, labels: Sequence[str]) -> dict[str, Any]:
    """Return the numbers of a gap as JSON values, with its label's name."""
    return {
        "label": labels[gap.label],
        "size": gap.size,
        "mass": gap.mass,
        "synthetic_mass": gap.synthetic_mass,
        "pool_mass": gap.pool_mass,
        "z": gap.z,
        "witness": gap.witness,
    }


def _command(folder: Path, number: int, n_rounds: int, ids: list[str]) -> str:
    """Return the lines that fork the session and give the fork one more round, written from these rows and their neighbours."""
    name = f"{folder.name}-gap{number}"
    # JSON's quotes: an id of digits only would be read as a number.
    settings = {"explore.focus": json.dumps(ids), "limits.max_rounds": str(n_rounds + 1)}
    return f"{fork_command(folder, name, settings)}\n{resume_command(folder.parent / name)}"
