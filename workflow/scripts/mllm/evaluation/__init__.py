"""Evaluate predictions: scores, comparisons, leaderboard and verdict. Imports all rooms before it; runs no model."""
