"""Load tokenizers of checkpoints; check that they are present, readable and complete, and distinguish texts.

The checks are needed because libraries invent a tokenizer where there is none.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.errors import Failure
from mllm.core.messages import log

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "spm.model",
    "bpe.codes",
)  # fmt: skip
TOGETHER = {"vocab.json": "merges.txt", "bpe.codes": "vocab.txt"}  # each is useless without the other
SHOWN = 200  # texts whose tokens are compared
SAMPLES = (
    "The pain went away after 2 days.", "It made me sick!", "Ça va mieux.", "Боль прошла", "疼痛消失了", "ठीक है", "الألم",
    "通증이 사라졌다", "efeitos",
)  # fmt: skip

ODD = (" two  spaces ", "HELLO Hello hello", "don't 1234567", "a\n\nb\tc", "naïve 😀")


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Load a checkpoint's tokenizer; its tokens are those of ``tokenizer.json`` if the folder has one.

    Raises:
        Failure: there is none, a part of it is missing, it cannot be read, or it gives all texts the same tokens.
    """
    present = [name for name in FILES if (folder / name).exists()]
    try:
        tokenizer = _read(folder)
        read = [tuple(_tokens(tokenizer, text)) for text in SAMPLES]
    except Exception as error:  # the libraries raise no narrower class
        if not present:
            raise _absent(folder) from None
        lacks = [TOGETHER[n] for n in present if n in TOGETHER and not (folder / TOGETHER[n]).exists()]
        if lacks and "tokenizer.json" not in present:
            raise Failure(
                f"{folder}: a part of its tokenizer is missing: {lacks[0]}. Fix: copy it there, or a tokenizer.json"
            ) from None
        import tokenizers
        import transformers

        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Failure(
            f"{folder}: its tokenizer ({present[0]}) cannot be read by tokenizers {tokenizers.__version__} and transformers"
            f" {transformers.__version__}: {first}. Fix: save it again with these versions or older ones"
        ) from None
    if not present and (tokenizer.vocab_files_names or not (folder / "tokenizer_config.json").exists()):
        raise _absent(folder)
    known = {ids for ids in read if set(ids) - {tokenizer.unk_token_id}}
    if len(known) < 2:
        raise Failure(
            f"{folder}: its tokenizer ({', '.join(present) or 'of bytes'}) gives {len(SAMPLES)} sample texts the same tokens,"
            " or unknown ones. Fix: use the tokenizer that the model was trained with"
        )
    return tokenizer


def _read(folder: Path) -> "PreTrainedTokenizerBase":
    """Load a tokenizer by its own class, or by its file only if the class would give other tokens than the file.

    transformers 5 takes the words of ``tokenizer.json``. It builds the rest from its class's defaults, unless
    ``tokenizer_config.json`` says otherwise: a cased BERT's texts became lower-case silently.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file, called = folder / "tokenizer.json", "no class of transformers"
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        called = type(tokenizer).__name__
        if type(tokenizer) is PreTrainedTokenizerFast or not file.exists():
            return tokenizer
        plain = Tokenizer.from_file(str(file))
        plain.no_truncation()
        plain.no_padding()
        if all(_tokens(tokenizer, t) == plain.encode(t, add_special_tokens=False).ids for t in (*SAMPLES, *ODD)):
            return tokenizer
    except Exception:  # as above
        if not file.exists():
            raise
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    log.info("%s: tokens are those of its tokenizer.json; %s would give others", folder, called)
    return tokenizer


def _tokens(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _absent(folder: Path) -> Failure:
    return Failure(
        f"{folder}: no tokenizer ({', '.join(FILES[:6])}, …). Fix: save the model's tokenizer there too"
        " (tokenizer.save_pretrained)"
    )


def check_embedded(tokenizer: Any, model: Any, folder: Path) -> None:
    """Refuse tokens without a row of embeddings, and a tokenizer without a padding token.

    Args:
        tokenizer: the checkpoint's tokenizer, with its padding token chosen.
        model: the model as loaded.
        folder: the checkpoint.
    """
    if tokenizer.pad_token is None:
        raise Failure(
            f"{folder}: its tokenizer has no padding token and no end token, so that batches cannot be made. Fix: set a token"
            " that it knows as pad_token, and save the tokenizer again"
        )
    embeddings = model.get_input_embeddings()
    rows = getattr(embeddings, "num_embeddings", None)
    last = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if rows is not None and last[1] >= rows:
        raise Failure(
            f"{folder}: its tokenizer numbers tokens up to {last[1]} ({last[0]!r}), its embeddings have {rows} rows. Fix:"
            " model.resize_token_embeddings(len(tokenizer)) before training, or use the tokenizer of the model"
        )


def check_ended(tokenizer: Any, end: int, folder: Path) -> None:
    """Refuse a tokenizer that does not put one end token after a text: T5's and BART's classifiers read their answer there."""
    for text in SAMPLES[:2]:
        ids = tokenizer(text, verbose=False)["input_ids"]
        if ids[-1:] != [end] or ids.count(end) > 1:
            raise Failure(
                f"{folder}: its tokenizer puts no end token (number {end}, eos_token_id in config.json) after a text, where the"
                " model reads its answer. Fix: use the tokenizer of the model, or correct eos_token_id"
            )


def check_distinct(rows: Sequence[Sequence[int]], texts: Sequence[str]) -> None:
    """Refuse a tokenizer that gives most of many different texts the same tokens: predictions would ignore the text.

    Args:
        rows: tokens of each text.
        texts: the texts.
    """
    different = dict(zip(texts[:SHOWN], map(tuple, rows[:SHOWN]), strict=True))
    if len(different) < 20:
        return
    row, times = Counter(different.values()).most_common(1)[0]
    if times > len(different) / 2:
        raise Failure(
            f"tokenizer: {times:,} of {len(different):,} different reviews get the same {len(row)} tokens. Fix: use the"
            " tokenizer that the model was trained with, or a larger max_length"
        )
