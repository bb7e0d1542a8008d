"""Core: errors, atomic files, log lines, digests of code, this process and its device. Imports no other room."""
