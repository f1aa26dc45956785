"""The configuration of a session: what to match, with which models, how far to go.

Every field carries its meaning, unit and default where it is declared; `synalign init` writes them as comments and `synalign
config schema` as JSON Schema, so that there is one place to read and one to change.
"""

from synalign_agent.config.alignment import AlignConfig, LimitsConfig, TargetConfig
from synalign_agent.config.data import DataConfig, EncoderConfig
from synalign_agent.config.generation import (
    AttributesConfig,
    CopyGateConfig,
    ExploreConfig,
    GatesConfig,
    GenerateConfig,
    LabelGateConfig,
    LengthGateConfig,
)
from synalign_agent.config.llm import LLMConfig, LLMPrices
from synalign_agent.config.observability import MLflowConfig, ObservabilityConfig, OTLPConfig
from synalign_agent.config.paths import EXAMPLE_PREFIX, resolve_path
from synalign_agent.config.review import ReviewConfig, ReviewPolicy
from synalign_agent.config.section import OPERATIONAL, Section, is_operational, walk_fields
from synalign_agent.config.session import SessionConfig
from synalign_agent.config.storage import StorageConfig

__all__ = [
    "EXAMPLE_PREFIX",
    "OPERATIONAL",
    "AlignConfig",
    "AttributesConfig",
    "CopyGateConfig",
    "DataConfig",
    "EncoderConfig",
    "ExploreConfig",
    "GatesConfig",
    "GenerateConfig",
    "LLMConfig",
    "LLMPrices",
    "LabelGateConfig",
    "LengthGateConfig",
    "LimitsConfig",
    "MLflowConfig",
    "OTLPConfig",
    "ObservabilityConfig",
    "ReviewConfig",
    "ReviewPolicy",
    "Section",
    "SessionConfig",
    "StorageConfig",
    "TargetConfig",
    "is_operational",
    "resolve_path",
    "walk_fields",
]
