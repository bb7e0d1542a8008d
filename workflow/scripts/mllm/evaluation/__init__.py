"""Evaluation: from predictions to scores, comparisons, leaderboard and verdict. Imports all rooms before it; runs no model."""
