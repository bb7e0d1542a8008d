"""Reporting: pages, charts, tables and model cards made of scores. Imports all rooms before it."""
