"""Of which models mergekit-moe makes mixtures of experts, and what those are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mixture:
    """One architecture of experts."""

    model_type: str
    """Of the experts' config.json."""
    experts: str
    """How the names of their classes begin."""
    mixture: str
    """How the name of the mixture's class begins."""
    writer: str
    """mergekit's name for what writes the mixture."""
    shared_expert: bool = False
    """Whether one more expert sees every token."""

    def architectures(self) -> dict[str, str]:
        """The experts' classes, and the mixture's of each."""
        return {self.experts + head: self.mixture + head for head in HEADS}


HEADS = ("ForSequenceClassification", "ForCausalLM")
# Not DeepSeek's, which needs code from the hub.
MIXTURES = (
    Mixture("llama", "Llama", "Mixtral", "Mixtral"),
    Mixture("mistral", "Mistral", "Mixtral", "Mixtral"),
    Mixture("qwen2", "Qwen2", "Qwen2Moe", "Qwen MoE", shared_expert=True),
    Mixture("qwen3", "Qwen3", "Qwen3Moe", "Qwen3 MoE"),
)
