"""The rows to match, and the space in which they are compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from synalign_agent.config.section import OPERATIONAL, Section


class DataConfig(Section):
    """The real rows to match."""

    path: str = Field(
        description="JSONL, CSV or Parquet file (relative to this file), a Hugging Face dataset id or folder, or "
        "`example:customer_messages`."
    )
    format: Literal["auto", "jsonl", "csv", "parquet", "huggingface"] = Field(
        "auto", description="How to read `path`; `auto` goes by the file name."
    )
    hf_split: str = Field("train", description="Which split of a Hugging Face dataset to read.")
    text_column: str = Field("text", description="Field that holds the text.")
    label_column: str | None = Field(
        "label", description="Field that holds the label; null treats all rows as one group."
    )
    encoding: str = Field("utf-8", description="Encoding of JSONL and CSV files.")
    holdout_fraction: float = Field(
        0.2, ge=0.0, lt=1.0, description="Share of each label's rows kept for scoring only (0 turns the hold-out off)."
    )
    min_holdout_rows: int = Field(
        20,
        ge=2,
        description="Least rows held out per label; a label with fewer than twice as many rows gets no hold-out.",
    )


class EncoderConfig(Section):
    """The sentence encoder in whose space distributions are compared."""

    model: str | None = Field(
        None, description="sentence-transformers id or path (null = the packaged all-MiniLM-L6-v2)."
    )
    device: str | None = Field(
        None, description="torch device, e.g. cpu or cuda (null = automatic).", json_schema_extra=OPERATIONAL
    )
    precision: Literal["auto", "float32", "bfloat16", "onnx"] = Field(
        "auto",
        description="`auto` takes the fastest whose vectors are those of float32: bfloat16 where the CPU has it, else ONNX "
        "Runtime where it is installed.",
    )
    batch_size: int = Field(32, ge=1, description="Texts per batch.", json_schema_extra=OPERATIONAL)
