"""Which fields of a session's configuration clients may set, and the JSON schema that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from synalign_agent.config import Section, SessionConfig

# What is not listed is the operator's: a field that is added to the configuration stays closed until somebody opens it here.
# Closed are all paths and URLs but `data.path` and `llm.base_url`, which are checked; names of environment variables, request
# fields (`n` would multiply the cost of a call), prices (the USD limit goes by them), devices and threads.
OPEN = frozenset(
    f"{section}{name}"
    for section, names in {
        "": "task n_samples seed round_samples",
        "data.": "path format text_column label_column encoding holdout_fraction min_holdout_rows",
        "llm.": "provider base_url model temperature reading_temperature max_tokens structured_output max_failed_share",
        "explore.": "strategy kernel cluster_size lengthscale_factor noise gap_floor focus",
        "attributes.": "enabled dimensions propose n_dimensions",
        "generate.": "samples_per_call calls_per_cluster demonstrations",
        "gates.": "max_repetition duplicate_cosine",
        "gates.length.": "min_characters max_characters",
        "gates.copy_check.": "max_shared_words max_cosine max_row_share",
        "gates.label_check.": "method neighbours min_vote",
        "review.": "attributes samples margin items_per_batch",
        "align.": "oversampling label_prior objective max_copies min_ess swaps contrast_shrinkage max_label_odds "
        "lengthscale_multipliers tolerance",
        "target.": "mmd2 n_equivalent alpha",
        "limits.": "max_rounds patience_rounds min_gain max_calls max_tokens max_usd",
    }.items()
    for name in names.split()
)


class LikeOpenFields:
    """Annotates plain values whose schema is that of the open fields; they are checked when the session is opened."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        """Return the JSON schema of the open fields."""
        return handler(_open_model(SessionConfig, "").__pydantic_core_schema__)


def leaves(
    values: Mapping[str, Any], section: type[Section] = SessionConfig, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of every field that is given, known or not."""
    for name, value in values.items():
        inner = _section(section, name)
        if inner is not None and isinstance(value, Mapping):
            yield from leaves(value, inner, f"{prefix}{name}.")
        else:
            # A dot in a key would make one name of two levels.
            yield f"{prefix}{str(name).replace('.', '/')}", value


def _section(section: type[Section], name: str) -> type[Section] | None:
    field = section.model_fields.get(name)
    inner = None if field is None else field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, Section) else None


def _open_model(section: type[Section], prefix: str) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, info in section.model_fields.items():
        inner = _section(section, name)
        kind: Any = info.annotation
        if inner is not None:
            kind = _open_model(inner, f"{prefix}{name}.")
            if not kind.model_fields:
                continue
        elif f"{prefix}{name}" not in OPEN:
            continue
        fields[name] = (kind | None, Field(None, description=info.description))
    return create_model(section.__name__, __config__=ConfigDict(extra="forbid"), **fields)
