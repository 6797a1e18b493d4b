"""parrot_lite: a lightweight, single-GPU reproduction kit for *Parrot* (arXiv 2310.07301)."""

__version__ = "0.1.0"
