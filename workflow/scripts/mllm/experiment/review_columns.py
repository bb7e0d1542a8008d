"""Columns of the review tables, by their use. This imports nothing, since every start of Snakemake reads it."""

BUILT_IN = ("id", "drug", "condition", "review", "rating", "date", "useful_count")
# Columns of data/reviews.parquet that can define a slice or a task; the experiment's own tables add others.
SLICEABLE = ("condition", "drug", "rating", "year", "useful_count")
STATISTICS = {
    "characters": "characters, spaces included",
    "words": "runs of anything but white space",
    "sentences": "ends of sentences: . ! ? or … before white space or the end; at least one",
    "readability": "automated readability index (Senter and Smith 1967): school grade; letters, digits, words, sentences",
    "capitals": "share of capital letters among letters",
    "exclamations": "exclamation marks",
    "negations": "words such as no, never, don't",
    "emphasis": "repeated ! and ?, runs of dots, emoticons",
    "tokens": "tokens of the base's tokenizer, uncut",
}
"""Column -> quantity that it counts."""

# Names that the columns of a user's table cannot have.
TAKEN = ("review_id", "file", "line", "group", "year", "reason", "split", "label", "truth", *STATISTICS)
TAKEN_PREFIXES = ("label_", "logp_")
