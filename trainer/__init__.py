"""Produces checkpoints. Nothing is trained yet: the default checkpoint is the untrained base model."""
