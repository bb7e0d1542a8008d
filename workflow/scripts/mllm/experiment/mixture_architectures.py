"""Architectures of which mergekit-moe makes mixtures of experts, and the mixtures' architectures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mixture:
    """One architecture of experts."""

    model_type: str
    """``model_type`` of the experts' config.json."""
    experts: str
    """Beginning of their classes' names."""
    mixture: str
    """Beginning of the mixture's class name."""
    writer: str
    """mergekit's name of the architecture that it writes."""
    shared_expert: bool = False
    """Whether one additional expert sees every token."""

    def architectures(self) -> dict[str, str]:
        """Return expert's class -> mixture's class."""
        return {self.experts + head: self.mixture + head for head in HEADS}


HEADS = ("ForSequenceClassification", "ForCausalLM")
# DeepSeek's mixtures are missing, since they need code from the hub.
MIXTURES = (
    Mixture("llama", "Llama", "Mixtral", "Mixtral"),
    Mixture("mistral", "Mistral", "Mixtral", "Mixtral"),
    Mixture("qwen2", "Qwen2", "Qwen2Moe", "Qwen MoE", shared_expert=True),
    Mixture("qwen3", "Qwen3", "Qwen3Moe", "Qwen3 MoE"),
)
