"""Arrange the labels' tokens as a tree, so that common beginnings are computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class LabelTree:
    """The places at which a language model predicts its next token, to give the likelihood of every label.

    Node 0 is the end of the prompt; each other node is one more token of one or several labels. A label's last token is
    not a node: nothing follows it.
    """

    tokens: tuple[int, ...]
    """(nodes - 1,) tokens of the nodes from 1 on."""
    parents: tuple[int, ...]
    """(nodes - 1,) parents of the nodes from 1 on; each is smaller than the node itself."""
    paths: tuple[tuple[tuple[int, int], ...], ...]
    """Label -> pairs (node, next token), whose log-probabilities add up to the label's."""

    @property
    def depths(self) -> list[int]:
        """(nodes,) number of tokens after the prompt's end."""
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
    """Build the tree of some labels.

    Args:
        labels: each label's tokens, at least one.

    Raises:
        ValueError: a label has no tokens, or two labels have the same tokens.
    """
    if not all(labels) or len(set(map(tuple, labels))) < len(labels):
        raise ValueError("labels: found empty or equal tokens, expected different tokens for each label")
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
    """Return whether some label's tokens are the first tokens of another's, as those of "1" and "10" may be."""
    ordered = sorted(map(list, labels))
    return any(b[: len(a)] == a for a, b in pairwise(ordered))
