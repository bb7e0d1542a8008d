"""Define the report's colours: one for each kind of candidate and for each answer, in light and in dark mode."""

INK, PAPER, SOFT, LINE = "#111827", "#ffffff", "#4b5563", "#d1d5db"
# Kind -> colour. White text on it has a contrast of 4.5 or more.
KINDS = {"merge": "#7c3aed", "expert": "#0369a1", "base": "#6b7280", "blend": "#b45309", "reference": "#1f2937"}
ANSWERS = {"Yes": "#15803d", "No": "#b91c1c", "Not shown": "#6b7281"}
HEAT = "#3b82f6"
DARK = {
    INK: "#e5e7eb", PAPER: "#0f172a", SOFT: "#a3adbb", LINE: "#3b475a", HEAT: "#2563eb",
    **dict(zip(KINDS.values(), ("#a78bfa", "#38bdf8", "#9ca3af", "#fbbf24", "#f3f4f6"), strict=True)),
    **dict(zip(ANSWERS.values(), ("#4ade80", "#f87171", "#9ca3af"), strict=True)),
}  # fmt: skip
NAMES = {INK: "ink", PAPER: "paper", SOFT: "soft", LINE: "line", HEAT: "heat"} | {
    colour: name.lower().replace(" ", "-") for name, colour in (KINDS | ANSWERS).items()
}
"""Colour -> its variable in the style sheet."""
STYLED = {"#333333": "soft", "#eeeeee": "line", "#ddd": "line", "#888": "soft"}  # of axes in files


def light() -> str:
    """Return the style sheet's variables for light mode."""
    return " ".join(f"--{name}: {colour};" for colour, name in NAMES.items())


def dark() -> str:
    """Return the style sheet's variables for dark mode."""
    return " ".join(f"--{name}: {DARK[colour]};" for colour, name in NAMES.items())


def variables(svg: str) -> str:
    """Make a drawing's colours follow the page's."""
    for colour, name in [*NAMES.items(), *STYLED.items()]:
        svg = svg.replace(f'"{colour}"', f'"var(--{name})"')
    return svg
