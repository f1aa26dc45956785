"""Fill the model-dependent defaults of a configuration from `profiles.yaml`."""

from __future__ import annotations

from fnmatch import fnmatch
from importlib import resources
from typing import Any

import yaml

from synalign_agent.config import SessionConfig


def profile_for(model: str) -> dict[str, Any]:
    """Return the first profile whose pattern matches the model name or path."""
    text = resources.files("synalign_agent.llm").joinpath("profiles.yaml").read_text(encoding="utf-8")
    return next(profile for profile in yaml.safe_load(text) if fnmatch(model.lower(), profile["match"].lower()))


def resolve_profile(config: SessionConfig, model: str) -> SessionConfig:
    """Return a copy of `config` in which every null that the model's profile knows is filled."""
    profile = profile_for(model)
    overrides = {
        f"{section}.{name}": value
        for section in ("llm", "attributes", "generate")
        for name, value in profile[section].items()
        if getattr(getattr(config, section), name) is None
    }
    return config.with_overrides(overrides, source=f"profile {profile['name']}")
