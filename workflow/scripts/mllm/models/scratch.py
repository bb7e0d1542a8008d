"""Make bases from scratch: a tokenizer and a small model from train reviews only."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.errors import Failure
from mllm.core.messages import log
from mllm.models import families
from mllm.models.heads import label_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

END = "<|endoftext|>"
PAD = "<|pad|>"


def from_scratch(
    spec: dict[str, Any], texts: list[str], names: list[Any], seed: int, scratch: Path
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Make a small model and its tokenizer from train reviews only.

    Args:
        spec: family, architecture, width, layers, heads, vocabulary, max_length, and pretrain (or None).
        texts: train reviews; the only text that the tokenizer and the language model see.
        names: class names.
        seed: the seed of the weights and of the order of the texts.
        scratch: folder for temporary files.
    """
    import transformers
    from transformers import set_seed

    tokenizer = train_tokenizer(texts, spec["vocabulary"], spec["max_length"], ended=spec["architecture"] == "t5")
    headed = spec["family"] == families.HEADED
    config = _config(spec, tokenizer, label_config(names) if headed else {})
    auto = getattr(transformers, families.load(spec["family"]).AUTO)
    set_seed(seed)
    model = auto.from_config(config)
    if spec.get("pretrain"):
        set_seed(seed)
        language_model = transformers.AutoModelForCausalLM.from_config(config)
        pretrain(language_model, tokenizer, texts, spec["pretrain"], seed, scratch)
        body = model.base_model_prefix
        getattr(model, body).load_state_dict(getattr(language_model, body).state_dict())
        model = model if headed else language_model
    log.info("made a model of %s parameters, %s tokens", f"{model.num_parameters():,}", len(tokenizer))
    return model, tokenizer


def _config(spec: dict[str, Any], tokenizer: Any, labels: dict[str, Any]) -> Any:
    """Return the configuration of an architecture made from scratch."""
    from transformers import BertConfig, GPT2Config, LlamaConfig, T5Config

    width, layers, heads, longest = (spec[k] for k in ("width", "layers", "heads", "max_length"))
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **labels}
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    match spec["architecture"]:
        case "bert":
            return BertConfig(
                hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
                max_position_embeddings=longest, **common,
            )  # fmt: skip
        case "llama":
            return LlamaConfig(
                hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=3 * width,
                max_position_embeddings=longest, tie_word_embeddings=True, **common, **ends,
            )  # fmt: skip
        case "t5":
            return T5Config(
                d_model=width, d_kv=width // heads, d_ff=3 * width, num_layers=layers, num_heads=heads,
                feed_forward_proj="gated-gelu", decoder_start_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id, **common,
            )  # fmt: skip
    return GPT2Config(
        n_embd=width, n_layer=layers, n_head=heads, n_positions=longest, **common, **ends,
    )  # fmt: skip


def train_tokenizer(
    texts: list[str], vocabulary: int, max_length: int, ended: bool = False
) -> "PreTrainedTokenizerBase":
    """Train a byte-level BPE tokenizer, which knows every text; ``ended`` adds the end token to each text, as T5's does."""
    from tokenizers import ByteLevelBPETokenizer, Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts, vocab_size=vocabulary, min_frequency=2, special_tokens=[END, PAD], show_progress=False
    )
    if ended:
        end = bpe.token_to_id(END)
        bpe.post_processor = TemplateProcessing(single=f"$A {END}", special_tokens=[(END, end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(bpe.to_str()), eos_token=END, bos_token=END, pad_token=PAD,
        model_max_length=max_length, padding_side="right",
    )  # fmt: skip


def pretrain(model: Any, tokenizer: Any, texts: list[str], spec: dict[str, Any], seed: int, scratch: Path) -> None:
    """Train a language model on the texts, packed into blocks without padding."""
    import torch
    from transformers import PrinterCallback, Trainer, TrainingArguments

    from mllm.models.training_progress import QuietProgress

    block = model.config.max_position_embeddings
    ids = [i for text in tokenizer(texts)["input_ids"] for i in [*text, tokenizer.eos_token_id]]
    blocks = torch.tensor(ids[: len(ids) // block * block]).view(-1, block)
    if len(blocks) < 1:
        raise Failure(
            f"models: pretrain: too few train reviews (found {len(ids)} tokens, expected a block of {block}). Fix: use more"
            " reviews, or remove pretrain"
        )
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
