"""Stillwatch: tells prompts that harvest a model's answers as training data from ordinary ones."""

__version__ = "0.1.0"
