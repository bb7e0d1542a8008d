"""The labels' tokens as a tree, so that what they have in common is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class LabelTree:
    """Where a language model has to be asked for its next token, to know the likelihood of every label.

    Node 0 is the end of the prompt; each other node is one more token of one or several labels. A label's last token is
    no node: nothing comes after it.
    """

    tokens: tuple[int, ...]
    """(nodes - 1,) of the nodes from 1 on."""
    parents: tuple[int, ...]
    """(nodes - 1,) of the nodes from 1 on; smaller than the node itself."""
    paths: tuple[tuple[tuple[int, int], ...], ...]
    """Label -> (node, next token), whose log-probabilities add up to the label's."""

    @property
    def depths(self) -> list[int]:
        """(nodes,) tokens after the prompt's end."""
        result = [0]
        for parent in self.parents:
            result.append(result[parent] + 1)
        return result

    @property
    def sees(self) -> list[list[bool]]:
        """(nodes, nodes): whether the node of the row is, or comes after, the node of the column."""
        size = len(self.parents) + 1
        result = [[False] * size for _ in range(size)]
        for node in range(size):
            if node:
                result[node] = list(result[self.parents[node - 1]])
            result[node][node] = True
        return result


def label_tree(labels: Sequence[Sequence[int]]) -> LabelTree:
    """The tree of some labels.

    Args:
        labels: each label's tokens, at least one.

    Raises:
        ValueError: a label has no tokens, or two have the same.
    """
    if not all(labels) or len(set(map(tuple, labels))) < len(labels):
        raise ValueError("labels need tokens, and different ones")
    nodes: dict[tuple[int, ...], int] = {(): 0}
    tokens, parents = [], []
    for label in labels:
        for end in range(1, len(label)):
            prefix = tuple(label[:end])
            if prefix not in nodes:
                nodes[prefix] = len(nodes)
                tokens.append(prefix[-1])
                parents.append(nodes[prefix[:-1]])
    paths = tuple(tuple((nodes[tuple(label[:i])], token) for i, token in enumerate(label)) for label in labels)
    return LabelTree(tuple(tokens), tuple(parents), paths)


def one_begins_another(labels: Sequence[Sequence[int]]) -> bool:
    """Whether some label's tokens are another's first ones, as those of "1" and "10" may be."""
    ordered = sorted(map(list, labels))
    return any(b[: len(a)] == a for a, b in pairwise(ordered))
