"""The schema of the experiment file, as pydantic models.

Importing this must stay cheap (no torch, no mergekit), since every job of Snakemake does it.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mllm.experiment.merge_entries import AnyMerge
from mllm.experiment.model_entries import (
    HubModel,
    LocalModel,
    Name,
    Positive,
    ScratchModel,
    TaskPrompt,
    about_drug_reviews,
)
from mllm.experiment.training_entries import AnyReference, Baseline, Expert, Reference
from mllm.experiment.value_types import Seed, Strict, Value

Column = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "mcc", "kappa", "kappa_quadratic", "mae", "spearman", "nll", "brier", "ece"]  # fmt: skip


class Described(Strict):
    """Keys of all sources."""

    description: str | None = None
    """What the texts are, in a few words (reviews of hotels), for the report and model cards. Nothing is computed from
    it."""


class UciData(Described):
    """The official files, downloaded once for all experiments."""

    source: Literal["uci"]


class LocalData(Described):
    """Your own files: TSV or CSV, with the columns of the official files or others."""

    source: Literal["local"]
    train: str
    """Path of the train file, from the project's root; with split.mode: random, of the only file."""
    test: str | None = None
    """Path of the test file; optional with split.mode: random."""
    columns: dict[Column, str | Annotated[list[str], Field(min_length=1)]] | None = None
    """MLLM's name: the file's name, such as {review: Review Text, score: Star Rating}; several columns in a list are
    joined. review is needed. id, drug, condition, rating (1 to 10), date and useful_count are known; every other name
    makes a column for tasks and slices. Default: the names of UCI or Kaggle."""
    repairs: Literal["auto", "uci", "none"] = "auto"
    """Repair the UCI files' quirks: quotation marks around each text, cut condition names. auto: if the file shows
    them."""
    dates: Literal["month-first", "day-first"] | None = None
    """How to read 04/05/2012; needed if no other date of the column tells."""
    quotes: Literal["csv", "none"] = "csv"
    """csv: quotation marks may enclose a field; none: they are ordinary characters."""


class SyntheticData(Described):
    """Generated reviews in the official format, quirks included; for demonstrations and tests."""

    source: Literal["synthetic"]
    rows: Annotated[int, Field(ge=100)] = 4000
    """Rows of the train and test files together; a quarter is test, as in the official files."""
    conditions: Annotated[int, Field(ge=2, le=6)] = 3
    """Number of different conditions, each with its own vocabulary."""


class PredictionsData(Described):
    """No reviews, but predictions that were made elsewhere; see candidates."""

    source: Literal["predictions"]


class Split(Strict):
    """How reviews become train, validation and test; no text is in both train and validation."""

    mode: Literal["official-clean", "official", "random"] = "official-clean"
    """official-clean removes from test all texts that are also in train; official keeps these leaks, to compare with
    published numbers; random draws test from all files, with equal shares of the first task's classes."""
    valid: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Fraction of train's distinct texts that becomes validation (random: of all texts)."""
    test: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Fraction of all distinct texts that becomes test (mode: random only; default 0.25)."""


class Task(Strict):
    """How a review becomes a labelled example."""

    name: Name
    """Its name in experts and references."""
    label: Literal["rating", "sentiment", "condition"] | None = None
    """rating: 1 to 10, ordered; sentiment: negative to 4, neutral 5 and 6, positive from 7, ordered; condition: the
    most frequent conditions. For other labels: column and classes."""
    top: Annotated[int, Field(ge=2)] | None = None
    """Number of conditions (label: condition only)."""
    column: str | None = None
    """Column whose values make the classes."""
    classes: Annotated[dict[str, Annotated[list[Value], Field(min_length=1)]], Field(min_length=2)] | None = None
    """Class: values of the column; reviews with other values have no label in this task."""
    ordered: bool | None = None
    """Whether the classes, as written, have an order (with column; default false)."""
    prompt: TaskPrompt | None = None
    """How language models (text2text, causal) are asked in this task, if their own prompts do not fit."""


class Blend(Strict):
    """A combination of its members' predictions."""

    method: Literal["soft_vote", "log_vote", "majority_vote", "weighted_vote", "stacking", "greedy"]
    """soft_vote: mean probability; log_vote: mean log-probability; majority_vote: most votes; weighted_vote: weights
    that fit validation best; stacking: logistic regression on log-probabilities; greedy: members added one by one
    (Caruana)."""
    members: Annotated[list[str], Field(min_length=1)]
    """Bases, experts, merges, references; `ties-*` means all candidates whose names match."""
    name: Name | None = None
    """Its name in the leaderboard (default: its method and a digest of its members)."""


class Candidates(Strict):
    """Prediction tables made elsewhere: one file (parquet or CSV) per candidate, with the candidate's name."""

    from_: str = Field(alias="from")
    """Folder with the tables, from the project's root."""
    label: str = "label"
    """Column with the true class: a value of the task's classes, its name, or (rating, sentiment) its number from 0."""
    columns: Annotated[list[str], Field(min_length=2)] | None = None
    """Columns with one number per class, in the classes' order (default: logp_0, logp_1, …)."""
    values: Literal["log_probabilities", "probabilities", "logits"] = "log_probabilities"
    """Kind of these numbers; logits are normalised so that probabilities sum to 1."""
    review: str = "review_id"
    """Column that identifies a review; without it, all tables must hold the same reviews in the same order."""
    group: str | None = None
    """Column that is equal for reviews with the same text, which count once (default: each review has its own text)."""
    kinds: dict[Literal["base", "expert", "merge", "reference"], list[str]]
    """Kind: names or patterns; a merge's method is its name up to the first hyphen."""
    parameters: dict[str, Positive] = Field(default_factory=dict)
    """Name or pattern: number of parameters, the cost that quality is compared with."""


class Compare(Strict):
    """How merges are selected and judged."""

    metric: Metric = "macro_f1"
    """Metric that selects each method's best recipe on validation and sorts the leaderboard."""
    margin: Annotated[float, Field(ge=0)] = 0.01
    """A merge that is worse than a reference by at most this much counts as its equal."""
    equivalence: bool = False
    """Whether the verdict also says for each claim whether both scores are within the margin of each other, in both
    directions."""
    tasks: str = "mean"
    """How to select among merges over several tasks, on validation. mean: by the mean of their scores, each divided by
    the score of the task's best expert; worst: by the lowest of these; or by the score in one task, by its name."""


class Experiment(Strict):
    """One complete experiment: data, models, experts, merges, and what to compare them with."""

    name: Name
    """Results go to results/<name>/."""
    seed: Seed = 17
    """Seed of everything random: splits, heads, orders, drawn examples, resamples."""
    replicates: Positive = 1
    """Number of trainings of all experts and references, on the same reviews with different seeds. Each merge and blend
    then exists once per replicate, and claims also hold for other trainings."""
    data: Annotated[UciData | LocalData | SyntheticData | PredictionsData, Field(discriminator="source")]
    split: Split = Split()
    tasks: Annotated[list[Task], Field(min_length=1)]
    candidates: Candidates | None = None
    """Tables of data.source: predictions, instead of models, base, experts and merges."""
    models: list[Annotated[HubModel | LocalModel | ScratchModel, Field(discriminator="source")]] = Field(
        default_factory=list
    )
    base: str = ""
    """The model from which all experts start."""
    experts: list[Expert] = Field(default_factory=list)
    merges: list[AnyMerge] = Field(default_factory=list)
    blends: list[Blend] = Field(default_factory=list)
    references: list[AnyReference] = Field(default_factory=list)
    compare: Compare = Compare()
    keep: Literal["none", "winners", "all"] = "winners"
    """Merged weights to keep after they are scored."""

    @model_validator(mode="before")
    @classmethod
    def _templates(cls, value: Any) -> Any:
        data = value.get("data") if isinstance(value, dict) else None
        if (
            not isinstance(data, dict)
            or data.get("source") not in ("uci", "synthetic")
            or not isinstance(value.get("models"), list)
        ):
            return value
        return {**value, "models": [about_drug_reviews(entry) for entry in value["models"]]}

    def task_of(self, entry: Expert | Reference | Baseline) -> str:
        """Return the task of an entry; without a name, the only task or the first of several that it is trained on."""
        return entry.task or self.tasks[0].name

    def task(self, name: str) -> Task:
        return next(t for t in self.tasks if t.name == name)

    def model(self, name: str, task: str | None = None) -> HubModel | LocalModel | ScratchModel:
        """Return an entry under models; with a task, it has that task's prompt."""
        found = next(m for m in self.models if m.name == name)
        own = self.task(task).prompt if task else None
        if own is None or found.prompt is None:
            return found
        return found.model_copy(update={"prompt": found.prompt.model_copy(update=own.model_dump(exclude_none=True))})
