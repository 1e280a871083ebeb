"""Synthetic instruction data in Chinese and English: one file a task, each a seeded generator."""
