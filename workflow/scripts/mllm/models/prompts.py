"""Prompts: how a review becomes a question to a language model, and labels its possible answers."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mllm.core.errors import Failure
from mllm.models.label_tree import one_begins_another

BETWEEN = "\n\n"  # examples
HOLE = "\ufffc"  # stands for the review in a chat template, which may escape or strip what it is given


@dataclass(frozen=True)
class Prompt:
    """What stands before and after a review, and the label words."""

    before: str
    after: str
    words: tuple[str, ...]
    """As they stand after the prompt: with the space between, where there is one."""
    special_tokens: bool = True
    """Whether the tokenizer adds its own at the ends; a chat template has them already."""


def build(
    spec: dict[str, Any],
    task: str,
    names: Sequence[str],
    tokenizer: Any,
    spaced: bool,
    examples: Sequence[tuple[str, int]] = (),
) -> Prompt:
    """Fill a prompt's template, all but the review.

    Args:
        spec: template, words (class -> word) and chat of the experiment's entry.
        task: its name, for {task}.
        names: class names, for {labels} and where there is no other word.
        tokenizer: for its chat template.
        spaced: whether a space stands between prompt and answer, as in running text.
        examples: (review, class) to show before the question.

    Raises:
        Failure: a word for a class that does not exist, two equal words, no chat template.
    """
    words = [spec["words"].get(name, name) for name in names]
    unknown = sorted(set(spec["words"]) - set(names))
    if unknown:
        raise Failure(f"prompt.words: {unknown[0]!r} is no class of task {task}; expected some of {', '.join(names)}")
    if len(set(words)) < len(words):
        raise Failure(f"prompt.words: two classes have the same word: {', '.join(words)}")
    head, _, tail = spec["template"].partition("{review}")
    head, tail = (part.replace("{task}", task).replace("{labels}", ", ".join(words)) for part in (head, tail))
    if spec["chat"]:
        return _chat(head, tail, words, tokenizer, examples)
    space = " " if spaced else ""
    shown = "".join(f"{head}{review}{tail} {words[label]}{BETWEEN}" for review, label in examples)
    return Prompt(shown + head, tail, tuple(space + word for word in words))


def _chat(head: str, tail: str, words: list[str], tokenizer: Any, examples: Sequence[tuple[str, int]]) -> Prompt:
    if not getattr(tokenizer, "chat_template", None):
        raise Failure(
            "prompt.chat: the tokenizer has no chat template; leave chat out, or take an instruction-tuned model"
        )
    turns = []
    for review, label in examples:
        turns += [{"role": "user", "content": f"{head}{review}{tail}"}, {"role": "assistant", "content": words[label]}]
    turns.append({"role": "user", "content": f"{head}{HOLE}{tail}"})
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # of jinja, and of templates that refuse by raise_exception
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Failure(
            f"prompt.chat: the tokenizer's chat template refuses {len(turns)} turns of user and assistant: {first}. Fix: leave chat"
            " out, or correct the template"
        ) from None
    before, hole, after = text.rpartition(HOLE)  # the last one: examples may have it too
    if not hole:
        raise Failure("prompt.chat: the tokenizer's chat template does not show the user's words as they are")
    return Prompt(before, after, tuple(words), special_tokens=False)


def draw_examples(reviews: Sequence[str], labels: Any, classes: int, number: int, seed: int) -> list[tuple[str, int]]:
    """Few-shot examples: the classes in turn, of the shorter half of the reviews, in random order.

    Args:
        reviews: of train.
        labels: (reviews,) class indices.
        classes: their number.
        number: of examples.
        seed: of the draw.

    Returns:
        (review, class), at most ``number``.
    """
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    lengths = np.array([len(r) for r in reviews])
    short = (lengths <= np.median(lengths)) & (lengths > 0) if len(lengths) else np.zeros(0, bool)
    queues = [list(rng.permutation(np.flatnonzero(short & (labels == k)))) for k in range(classes)]
    chosen: list[int] = []
    while len(chosen) < number and any(queues):
        for queue in queues:
            if queue and len(chosen) < number:
                chosen.append(int(queue.pop()))
    return [(reviews[i], int(labels[i])) for i in rng.permutation(chosen).astype(int)]


def encode(tokenizer: Any, prompt: Prompt, reviews: Sequence[str], longest: int) -> tuple[list[list[int]], int]:
    """Tokens of the prompt around each review; too long a review is cut at its end, never the prompt.

    Args:
        tokenizer: the model's; one in Python (ByT5's) reads a long review several times.
        prompt: what stands around the review.
        reviews: texts.
        longest: number of tokens at most.

    Returns:
        One list for each review; how many reviews were cut.

    Raises:
        Failure: the prompt alone is longer.
    """

    def tokens(texts: list[str], **more: Any) -> Any:
        return tokenizer(texts, add_special_tokens=prompt.special_tokens, verbose=False, **more)

    def whole(review: str) -> list[int]:
        found: list[int] = tokens([prompt.before + review + prompt.after])["input_ids"][0]
        return found

    def fits(review: str, characters: int) -> bool:
        return len(whole(review[:characters])) <= longest

    texts = [prompt.before + review + prompt.after for review in reviews]
    ids = tokens(texts)["input_ids"] if texts else []
    too_long = [i for i, found in enumerate(ids) if len(found) > longest]
    begin = len(prompt.before)
    for i in too_long:
        review = reviews[i]
        while len(ids[i]) > longest:
            if not review:
                raise Failure(
                    f"the prompt alone has {len(ids[i])} tokens; max_length leaves room for {longest}: a larger"
                    " max_length, a shorter template, or fewer examples"
                )
            if not tokenizer.is_fast:  # it does not say where its tokens are
                review = review[: _most(functools.partial(fits, review), len(review) - 1)]
                ids[i] = whole(review)
                continue
            found = tokens([prompt.before + review + prompt.after], return_offsets_mapping=True)
            places = found["offset_mapping"][0]
            inside = [a for a, b in places if a < b and begin <= a < begin + len(review)]
            # Again, where the cut makes other tokens of what is beside it.
            kept = len(inside) - (len(ids[i]) - longest)
            review = review[: inside[max(0, kept)] - begin if inside else len(review) // 2]
            ids[i] = whole(review)
    return ids, len(too_long)


def _check_told_apart(tokenizer: Any, words: Sequence[str], labels: list[list[int]]) -> None:
    """Refuse label words that the tokenizer does not know, or cannot tell from each other."""
    seen: dict[tuple[int, ...], str] = {}
    for word, label in zip(words, labels, strict=True):
        if not set(label) - {tokenizer.unk_token_id}:
            raise Failure(
                f"prompt.words: the tokenizer has no token for {word.strip()!r}. Fix: another word for that class"
            )
        other = seen.setdefault(tuple(label), word)
        if other is not word:
            raise Failure(
                f"prompt.words: the tokenizer gives {other.strip()!r} and {word.strip()!r} the same tokens. Fix: another word for one"
                " of these classes"
            )


def _most(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to ``most`` that fits, where all smaller ones do; 0 where none does."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def answers(tokenizer: Any, prompt: Prompt, ended: bool) -> list[list[int]]:
    """Tokens of the label words, as they follow the prompt's own tokens.

    Args:
        tokenizer: the model's.
        prompt: with the words.
        ended: whether the end of sequence is part of them; it is in any case where one label's tokens begin another's.

    Raises:
        Failure: the tokenizer has no token for a word, or the same for two; the end of sequence is needed, and it has none.
    """
    # A word with a space before it continues the prompt: some tokenizers mark the beginning of a text in another way.
    tail = prompt.after[-40:] if prompt.words[0].startswith(" ") else ""
    before = tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
    found = []
    for word in prompt.words:
        both = tokenizer(tail + word, add_special_tokens=False)["input_ids"]
        continues = both[: len(before)] == before
        found.append(both[len(before) :] if continues else tokenizer(word, add_special_tokens=False)["input_ids"])
    _check_told_apart(tokenizer, prompt.words, found)
    if not ended and not one_begins_another(found):
        return found
    if tokenizer.eos_token_id is None:
        raise Failure("labels end in the end of sequence, and the tokenizer has none; other words may need no end")
    return [[*label, tokenizer.eos_token_id] for label in found]
