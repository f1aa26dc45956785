"""Which names in a configuration are files."""

from __future__ import annotations

from pathlib import Path

EXAMPLE_PREFIX = "example:"
FILE_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".gguf"})


def resolve_path(name: str, folder: Path) -> str:
    """Return `name` as an absolute path if it is a file's name or a path that exists, seen from `folder`; else unchanged.

    Hugging Face ids look like relative paths; what exists, or ends like a data or model file, is none.
    """
    if name.startswith((EXAMPLE_PREFIX, "hf:")):
        return name
    local = folder / Path(name).expanduser()
    return str(local.resolve()) if local.suffix.lower() in FILE_SUFFIXES or local.exists() else name
