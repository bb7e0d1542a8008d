"""Report scores: pages, charts, tables and model cards. Imports all rooms before it."""
