"""Fine-tune a causal language model on a private table: local folders in, local folders out."""

__version__ = "0.1.0"
