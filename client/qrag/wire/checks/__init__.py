"""Checks of what a service finds: questions with the evidence that they expect, and gates of such questions."""
