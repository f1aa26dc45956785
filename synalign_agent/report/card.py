"""The dataset card: what the data are, how close they are to the real ones, and the configuration that makes them again."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.metadata import version
from typing import Any

import jinja2

from synalign_agent.config import SessionConfig
from synalign_agent.report.verdict import reference_note


def render_card(summary: Mapping[str, Any], config: SessionConfig) -> str:
    """Return a README.md in Hugging Face's form: YAML front matter with the configs of both files, then prose and numbers."""
    from huggingface_hub import DatasetCardData

    n = summary["n_selected"]
    size = next((f"{low}<n<{high}" for low, high, most in _SIZES if n < most), "n>1M")
    metadata = DatasetCardData(
        pretty_name=f"Synthetic {config.task}",
        annotations_creators=["machine-generated"],
        task_categories=["text-classification"] if config.data.label_column else ["text-generation"],
        size_categories=[size.replace("0<n<1K", "n<1K")],
        tags=["synthetic", "synalign-agent", "distribution-matching"],
        configs=[
            {"config_name": "default", "data_files": [{"split": "train", "path": "dataset.parquet"}]},
            {"config_name": "pool", "data_files": [{"split": "train", "path": "pool.parquet"}]},
        ],
    )
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.4g}"
    source = resources.files("synalign_agent.report").joinpath("card.md.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        metadata=metadata.to_yaml(),
        summary=summary,
        config=config,
        # A card is published: where files lie on the machine that made it is nobody's business, and of no use.
        config_yaml=config.without_folders().to_yaml(),
        reference_note=reference_note(summary["mmd2"]["reference"]) if n else None,
        version=version("synalign-agent"),
    )


_SIZES = (("0", "1K", 1e3), ("1K", "10K", 1e4), ("10K", "100K", 1e5), ("100K", "1M", 1e6))
