"""Interface for notebooks and terminals. It imports all rooms except execution; no room imports it."""
