"""Fuzzing of everything that reads files of others; see README.md here."""
