"""Make bases and experts of two tasks on a tiny model: rating (four classes) has expert a, mood (three) has b and c."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mllm.models import cards, checkpoint_files
from mllm.models.heads import label_config
from mllm.models.scratch import train_tokenizer
from tiny_models import LABELS, recipe_of

CLASSES = {"mood": LABELS, "rating": ["1", "2", "3", "4"]}
PARTS = {"mood": {"base": "base-mood", "members": ["b", "c"]}, "rating": {"base": "base-rating", "members": ["a"]}}


def make_task_models(architecture, folder: Path, family: str = "classifier", **asked) -> Path:
    """Make folders of both bases, equal except for their heads, and of experts near them."""
    torch.manual_seed(0)
    body = architecture()
    longest = getattr(body.config, "max_position_embeddings", 64)
    ended = body.config.model_type == "t5"
    tokenizer = train_tokenizer(["some words to make a vocabulary of"] * 3, 300, longest, ended)
    tokens = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    for task, part in PARTS.items():
        headed = label_config(CLASSES[task]) if family == "classifier" else {}
        model = type(body)(type(body.config).from_dict({**body.config.to_dict(), **headed, **tokens}))
        shared = getattr(body, body.base_model_prefix) if headed else body
        (getattr(model, body.base_model_prefix) if headed else model).load_state_dict(shared.state_dict())
        card = cards.Base(family=family, model=asked, task=task, seed=0)
        for name in (part["base"], *part["members"]):
            checkpoint_files.save(model, tokenizer, folder / name, card)
            if name != part["base"]:
                file = folder / name / "model.safetensors"
                noise = {k: v + 0.02 * torch.randn_like(v) for k, v in load_file(file).items()}
                save_file(noise, file, metadata={"format": "pt"})
    return folder


def task_recipe(values: dict) -> dict:
    """Return a recipe with members of both tasks, in the grid's form."""
    recipe = recipe_of(values)
    return {**recipe, "base": "base-mood" if recipe["base"] == "base" else recipe["base"]}


def parts_of(recipe: dict) -> dict:
    """Map each task to its base and those of its experts that are members."""
    return {
        task: {**part, "members": [m for m in part["members"] if m in recipe["members"]]}
        for task, part in PARTS.items()
    }
