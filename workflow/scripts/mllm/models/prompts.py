"""Build prompts: turn a review into a question to a language model, and labels into its possible answers."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mllm.core.errors import Failure
from mllm.models.label_tree import one_begins_another

BETWEEN = "\n\n"  # between examples
HOLE = "\ufffc"  # replaces the review in a chat template, which may escape or strip text


@dataclass(frozen=True)
class Prompt:
    """The text before and after a review, and the label words."""

    before: str
    after: str
    words: tuple[str, ...]
    """As they follow the prompt: with the space between, if there is one."""
    special_tokens: bool = True
    """Whether the tokenizer adds its special tokens at the ends; a chat template has them already."""


def build(
    spec: dict[str, Any],
    task: str,
    names: Sequence[str],
    tokenizer: Any,
    spaced: bool,
    examples: Sequence[tuple[str, int]] = (),
) -> Prompt:
    """Fill a prompt's template, except for the review.

    Args:
        spec: template, words (class -> word) and chat of the experiment's entry.
        task: the task's name, for {task}.
        names: class names, for {labels} and for classes without a word.
        tokenizer: the model's tokenizer, for its chat template.
        spaced: whether a space separates prompt and answer, as in running text.
        examples: (review, class) to show before the question.

    Raises:
        Failure: a word is for an unknown class, two words are equal, or the chat template is missing.
    """
    words = [spec["words"].get(name, name) for name in names]
    unknown = sorted(set(spec["words"]) - set(names))
    if unknown:
        raise Failure(f"prompt.words: found {unknown[0]!r}, expected classes of task {task}: {', '.join(names)}")
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
            "prompt.chat: the tokenizer has no chat template. Fix: remove chat, or use an instruction-tuned model"
        )
    turns = []
    for review, label in examples:
        turns += [{"role": "user", "content": f"{head}{review}{tail}"}, {"role": "assistant", "content": words[label]}]
    turns.append({"role": "user", "content": f"{head}{HOLE}{tail}"})
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja's errors, and those of templates that refuse by raise_exception
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Failure(
            f"prompt.chat: the tokenizer's chat template refuses {len(turns)} turns of user and assistant: {first}. Fix:"
            " remove chat, or correct the template"
        ) from None
    before, hole, after = text.rpartition(HOLE)  # the last one: examples may have it too
    if not hole:
        raise Failure("prompt.chat: the tokenizer's chat template changes the user's words. Fix: correct the template")
    return Prompt(before, after, tuple(words), special_tokens=False)


def draw_examples(reviews: Sequence[str], labels: Any, classes: int, number: int, seed: int) -> list[tuple[str, int]]:
    """Draw few-shot examples: the classes in turn, from the shorter half of the reviews, in random order.

    Args:
        reviews: reviews of train.
        labels: (reviews,) class indices.
        classes: number of classes.
        number: number of examples.
        seed: the seed of the draw.

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
    """Encode the prompt around each review; a review that is too long is cut at its end, the prompt never is.

    Args:
        tokenizer: the model's tokenizer; a tokenizer in Python (ByT5's) encodes a long review several times.
        prompt: the text around the review.
        reviews: texts.
        longest: maximal number of tokens.

    Returns:
        One list of tokens for each review; the number of cut reviews.

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
                    f"the prompt alone has {len(ids[i])} tokens, expected at most {longest} by max_length. Fix: use a larger"
                    " max_length, a shorter template, or fewer examples"
                )
            if not tokenizer.is_fast:  # it does not tell where its tokens are
                review = review[: _most(functools.partial(fits, review), len(review) - 1)]
                ids[i] = whole(review)
                continue
            found = tokens([prompt.before + review + prompt.after], return_offsets_mapping=True)
            places = found["offset_mapping"][0]
            inside = [a for a, b in places if a < b and begin <= a < begin + len(review)]
            # This repeats if the cut changes the tokens beside it.
            kept = len(inside) - (len(ids[i]) - longest)
            review = review[: inside[max(0, kept)] - begin if inside else len(review) // 2]
            ids[i] = whole(review)
    return ids, len(too_long)


def _check_told_apart(tokenizer: Any, words: Sequence[str], labels: list[list[int]]) -> None:
    """Refuse label words that the tokenizer does not know or cannot distinguish."""
    seen: dict[tuple[int, ...], str] = {}
    for word, label in zip(words, labels, strict=True):
        if not set(label) - {tokenizer.unk_token_id}:
            raise Failure(
                f"prompt.words: the tokenizer has no token for {word.strip()!r}. Fix: use another word for that class"
            )
        other = seen.setdefault(tuple(label), word)
        if other is not word:
            raise Failure(
                f"prompt.words: the tokenizer gives {other.strip()!r} and {word.strip()!r} the same tokens. Fix: use another"
                " word for one of these classes"
            )


def _most(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest number up to ``most`` that fits, if all smaller ones fit, too; 0 if none fits."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def answers(tokenizer: Any, prompt: Prompt, ended: bool) -> list[list[int]]:
    """Return the tokens of the label words, as they follow the prompt's own tokens.

    Args:
        tokenizer: the model's tokenizer.
        prompt: the prompt with the words.
        ended: whether the end of sequence is part of them; it always is if one label's tokens begin another's.

    Raises:
        Failure: the tokenizer has no token for a word, or the same for two; or it lacks the end of sequence they need.
    """
    # A word with a space before it continues the prompt: some tokenizers mark the beginning of a text differently.
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
        raise Failure(
            "prompt.words: labels need an end of sequence, and the tokenizer has none. Fix: try words that need no end"
        )
    return [[*label, tokenizer.eos_token_id] for label in found]
