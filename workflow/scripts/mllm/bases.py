"""Bases: the checkpoint from which experts start, with its classification head initialised once."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.cli import Failure, log

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

END = "<|endoftext|>"
PAD = "<|pad|>"
WHAT = {"classifier": "a sequence classifier", "text2text": "a text-to-text model", "causal": "a causal language model"}


def label_config(names: list[Any]) -> dict[str, Any]:
    """The label map as transformers' configuration wants it."""
    labels = [str(n) for n in names]
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {n: i for i, n in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def license_of(folder: Path) -> str | None:
    """The licence that a checkpoint's own card (README.md) names in its heading; none where it names none."""
    import yaml

    card = folder / "README.md"
    if not card.exists():
        return None
    parts = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        heading = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    found = heading.get("license") if isinstance(heading, dict) else None
    return str(found) if found else None


def from_checkpoint(
    folder: Path, family: str, names: list[Any], max_length: int, seed: int
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A pretrained checkpoint; a classifier with a new head, drawn from ``seed`` alone, others as they are.

    Raises:
        Failure: no safetensors, no tokenizer, code of its own, or more tokens than positions.
    """
    import transformers
    from transformers import AutoTokenizer, set_seed

    from mllm.checkpoints import AUTO, check_whole

    classifier = family == "classifier"
    head = {"ignore_mismatched_sizes": True, **label_config(names)} if classifier else {}

    check_whole(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        set_seed(seed)
        model = getattr(transformers, AUTO[family]).from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, dtype="float32", **head
        )
    except (OSError, ValueError) as error:
        raise Failure(f"{folder}: cannot be loaded as {WHAT[family]}: {str(error).splitlines()[0]}") from None
    # A checkpoint's own head, if it has one of the right size, was loaded: draw it anew all the same.
    for name, module in model.named_children():
        if classifier and name in ("score", "classifier", "classification_head"):
            for tensor in [module, *module.modules(), *module.parameters()]:
                tensor._is_hf_initialized = False  # transformers initialises nothing twice
            set_seed(seed)
            module.apply(model._init_weights)
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and max_length > positions:
        raise Failure(f"models: max_length is {max_length}, but {folder} has {positions} positions")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = max_length
    return model, tokenizer


def from_scratch(
    spec: dict[str, Any], texts: list[str], names: list[Any], seed: int, scratch: Path
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A small GPT-2-shaped model and its tokenizer, made from train reviews alone.

    Args:
        spec: family, width, layers, heads, vocabulary, max_length, and pretrain (or None).
        texts: train reviews; the only text that the tokenizer and the language model see.
        names: class names.
        seed: of the weights and the order of the texts.
        scratch: folder for temporary files.
    """
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, set_seed

    tokenizer = train_tokenizer(texts, spec["vocabulary"], spec["max_length"])
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=spec["max_length"],
        n_embd=spec["width"],
        n_layer=spec["layers"],
        n_head=spec["heads"],
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **label_config(names),
    )
    set_seed(seed)
    language_model = GPT2LMHeadModel(config)
    if spec.get("pretrain"):
        pretrain(language_model, tokenizer, texts, spec["pretrain"], seed, scratch)
    if spec["family"] == "causal":
        return language_model, tokenizer
    set_seed(seed)
    model = GPT2ForSequenceClassification(config)
    model.transformer.load_state_dict(language_model.transformer.state_dict())
    log.info("made a model of %s parameters, %s tokens", f"{model.num_parameters():,}", len(tokenizer))
    return model, tokenizer


def train_tokenizer(texts: list[str], vocabulary: int, max_length: int) -> "PreTrainedTokenizerBase":
    """A byte-level BPE tokenizer: every text has tokens, none is unknown."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts, vocab_size=vocabulary, min_frequency=2, special_tokens=[END, PAD], show_progress=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token=END, bos_token=END, pad_token=PAD,
        model_max_length=max_length, padding_side="right",
    )  # fmt: skip


def pretrain(model: Any, tokenizer: Any, texts: list[str], spec: dict[str, Any], seed: int, scratch: Path) -> None:
    """Language modelling on the texts, packed into blocks without padding."""
    import torch
    from transformers import PrinterCallback, Trainer, TrainingArguments

    from mllm.training import QuietProgress

    block = model.config.n_positions
    ids = [i for text in tokenizer(texts)["input_ids"] for i in [*text, tokenizer.eos_token_id]]
    blocks = torch.tensor(ids[: len(ids) // block * block]).view(-1, block)
    if len(blocks) < 1:
        raise Failure(f"models: {len(ids)} tokens of train reviews do not fill one block of {block} for pretrain")
    rows = [{"input_ids": b, "labels": b} for b in blocks]
    arguments = TrainingArguments(
        output_dir=str(scratch), max_steps=spec["steps"], per_device_train_batch_size=spec["batch_size"],
        learning_rate=spec["learning_rate"], lr_scheduler_type="cosine", warmup_steps=max(1, spec["steps"] // 20),
        seed=seed, data_seed=seed, save_strategy="no", report_to="none", logging_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[QuietProgress("language modelling")])
    trainer.remove_callback(PrinterCallback)
    log.info(
        "language modelling: %s blocks of %s tokens, loss %.3f at the end",
        len(rows),
        block,
        trainer.train().training_loss,
    )
    model.cpu()
