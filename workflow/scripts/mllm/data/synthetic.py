"""Generate reviews in the exact raw format of the UCI files, with their quirks.

Each condition has its own words for good and bad, and all conditions share others. An expert that has seen a single
condition understands a third of the others' statements. Words alone do not decide: a review also tells how things
were before, and denies the opposite of what it means. The same phrase therefore counts for, against, or not at all.
"""

from dataclasses import dataclass

import numpy as np

HEADER = "\tdrugName\tcondition\treview\trating\tdate\tusefulCount"
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
]  # fmt: skip
# Shares of the ratings 1 to 10 in the official test file (data set 462, 53,766 rows).
RATINGS = np.array([7299, 2334, 2205, 1659, 2710, 2119, 3091, 6156, 9177, 17016]) / 53766


@dataclass(frozen=True)
class Condition:
    name: str
    drugs: tuple[tuple[str, str], ...]  # (brand, generic)
    topic: tuple[str, ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]


CONDITIONS = (
    Condition(
        "Pain",
        (("Ultram", "Tramadol"), ("Celebrex", "Celecoxib"), ("Lyrica", "Pregabalin")),
        ("my lower back", "my knees", "the joints", "a pinched nerve", "my shoulder", "old injury", "physical therapy"),
        (
            "walk again",
            "slept through",
            "numbed the ache",
            "moved freely",
            "lifted my kids",
            "stiffness gone",
            "loosened up",
        ),
        (
            "still throbbing",
            "constipated badly",
            "nauseous and dizzy",
            "ache came back",
            "stabbing again",
            "foggy",
            "itched",
        ),
    ),
    Condition(
        "Depression",
        (("Zoloft", "Sertraline"), ("Wellbutrin", "Bupropion"), ("Lexapro", "Escitalopram")),
        ("my mood", "the therapist", "the dose", "my mornings", "getting out of bed", "my family", "the dark days"),
        ("laugh again", "clear headed", "feel like myself", "enjoy mornings", "stopped crying", "hopeful", "motivated"),
        ("numb inside", "emotionless", "suicidal thoughts", "cried daily", "gained weight", "no libido", "zombie"),
    ),
    Condition(
        "Acne",
        (("Accutane", "Isotretinoin"), ("Epiduo", "Adapalene / benzoyl peroxide"), ("Solodyn", "Minocycline")),
        ("my skin", "the cream", "my forehead", "the dermatologist", "my chin", "every night", "the moisturizer"),
        (
            "skin cleared",
            "glowing",
            "smooth face",
            "no more pimples",
            "scars faded",
            "confident without makeup",
            "compliments",
        ),
        ("broke out", "peeling", "cystic bumps", "burned my face", "flaky and red", "worse purge", "dry lips"),
    ),
    Condition(
        "Birth Control",
        (("Lybrel", "Ethinyl estradiol / levonorgestrel"), ("Nexplanon", "Etonogestrel"), ("Mirena", "Levonorgestrel")),
        ("my period", "the implant", "my cycle", "the insertion", "my hormones", "the first month", "my doctor"),
        (
            "no periods",
            "light and short",
            "never pregnant",
            "cramps vanished",
            "forget it is there",
            "regular",
            "convenient",
        ),
        (
            "bled for weeks",
            "spotting nonstop",
            "mood swings",
            "heavy clots",
            "got pregnant",
            "horrible cramps",
            "bloated",
        ),
    ),
    Condition(
        "Insomnia",
        (("Ambien", "Zolpidem"), ("Belsomra", "Suvorexant"), ("Desyrel", "Trazodone")),
        ("bedtime", "my sleep", "the nights", "my alarm", "half a pill", "shift work", "the ceiling"),
        ("out like a light", "eight hours", "woke rested", "drifted off", "dreamless", "back asleep", "refreshed"),
        (
            "wide awake",
            "nightmares",
            "groggy all day",
            "sleepwalking",
            "metallic taste",
            "tossed and turned",
            "hungover",
        ),
    ),
    Condition(
        "High Blood Pressure",
        (("Diovan", "Valsartan"), ("Norvasc", "Amlodipine"), ("Zestril", "Lisinopril")),
        ("my readings", "the cuff", "my cardiologist", "my pulse", "a low salt diet", "each morning", "the numbers"),
        (
            "numbers normal",
            "steady readings",
            "down to 120",
            "headaches stopped",
            "energy returned",
            "controlled",
            "stable",
        ),
        ("dry cough", "swollen ankles", "dizzy standing", "still 160", "palpitations", "fainted", "flushed"),
    ),
)
GOOD = (
    "works great",
    "highly recommend",
    "life saver",
    "no side effects",
    "so happy",
    "best ever",
    "amazing",
    "thankful",
)
BAD = (
    "does not work",
    "would not recommend",
    "waste of money",
    "terrible side effects",
    "stopped taking it",
    "awful",
    "never again",
    "worst ever",
)
NEUTRAL = (
    "some days better",
    "too early to tell",
    "mixed feelings",
    "works a little",
    "so so",
    "not sure yet",
    "manageable",
    "average",
)
BEFORE = ("at first", "in the beginning", "for the first weeks", "before that")
NOW = ("but now", "these days", "since then", "lately")
DENIED = ("I can not say that", "no way that", "it is not true that", "nobody can tell me that")
OPENERS = (
    "I have been taking this for",
    "My doctor put me on it for",
    "Started",
    "On it for",
    "I&#039;ve used it for",
    "Switched to this",
)
SPANS = ("two weeks", "3 months", "about a year", "a few days", "5 years", "six months", "10 days")


def generate(rows: int, conditions: int, seed: int) -> tuple[str, str]:
    """Make a train and a test file (a quarter of the rows), as text in the raw format.

    The same arguments give the same text. About one review in five occurs twice, under a brand and a generic name;
    some of these pairs are split between the files. A few rows lack a condition or have a broken one.
    """
    rng = np.random.default_rng(seed)
    lines: list[str] = []
    ids = iter(rng.permutation(rows * 2) + 1)
    while len(lines) < rows:
        condition = CONDITIONS[rng.integers(conditions)]
        rating = int(rng.choice(10, p=RATINGS)) + 1
        review = _review(rng, condition, rating)
        date = f"{MONTHS[rng.integers(12)]} {rng.integers(1, 29)}, {rng.integers(2008, 2018)}"
        useful = int(rng.geometric(0.04)) - 1
        brand, generic = condition.drugs[rng.integers(len(condition.drugs))]
        names = [brand, generic] if rng.random() < 0.2 else [brand if rng.random() < 0.5 else generic]
        shown = condition.name
        quirk = rng.random()
        if quirk < 0.005:
            shown = ""
        elif quirk < 0.01:
            shown = f"{rng.integers(1, 30)}</span> users found this comment helpful."
        for drug in names:
            lines.append(f'{next(ids)}\t{drug}\t{shown}\t"""{review}"""\t{rating}.0\t{date}\t{useful}')
    order = rng.permutation(rows)
    shuffled = [lines[i] for i in order]
    cut = rows - rows // 4
    return tuple("\r\n".join([HEADER, *part, ""]) for part in (shuffled[:cut], shuffled[cut:]))  # type: ignore[return-value]


def _review(rng: np.random.Generator, condition: Condition, rating: int) -> str:
    """Write a few statements that follow a rating; inner quotes, entities and line breaks are those of the format."""
    sentences = [f"{_one(rng, OPENERS)} {_one(rng, SPANS)}"]
    sentences += [_statement(rng, condition, rating) for _ in range(int(rng.integers(2, 5)))]
    text = ". ".join(s[0].upper() + s[1:] for s in sentences)
    if rng.random() < 0.3:
        text += _one(rng, (" &amp; that&#039;s it", ", it&#039;s true!", ' ""really""', "...", " :)"))
    if rng.random() < 0.15:
        text = text.replace(". ", ".\r\r\n", 1)
    return text + "."


def _statement(rng: np.random.Generator, condition: Condition, rating: int) -> str:
    """Write a neutral, good or bad statement, in shares that follow the rating.

    It is said directly, with the past beside the present, or by denying the opposite. The past comes before or after
    the present, and is its opposite four times in five.
    """
    topic = _one(rng, condition.topic)
    if rng.random() < (0.6 if rating in (5, 6) else 0.05):
        return f"{topic} {_one(rng, NEUTRAL)}"
    good = bool(rng.random() < 0.04 + 0.92 * (rating - 1) / 9)
    said = f"{topic} {_phrase(rng, condition, good)}"
    form = rng.random()
    if form < 0.3:
        was = good if rng.random() < 0.2 else not good
        past = f"{_one(rng, BEFORE)} {_one(rng, condition.topic)} {_phrase(rng, condition, was)}"
        present = f"{_one(rng, NOW)} {said}"
        return f"{past}, {present}" if rng.random() < 0.5 else f"{present}, {past}"
    if form < 0.45:
        return f"{_one(rng, DENIED)} {topic} {_phrase(rng, condition, not good)}"
    return said


def _phrase(rng: np.random.Generator, condition: Condition, good: bool) -> str:
    """Choose good or bad words; seven in ten are the condition's own."""
    own = rng.random() < 0.7
    if good:
        return _one(rng, condition.good if own else GOOD)
    return _one(rng, condition.bad if own else BAD)


def _one(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
