"""Read the licences of checkpoints."""

from pathlib import Path


def license_of(folder: Path) -> str | None:
    """Return the licence that a checkpoint's own card (README.md) names in its heading; None if it names none."""
    import yaml

    card = folder / "README.md"
    if not card.exists():
        return None
    parts = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        heading = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    found = heading.get("license") if isinstance(heading, dict) else None
    return str(found) if found else None
