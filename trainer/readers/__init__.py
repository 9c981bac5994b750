"""Readers: frozen language models that say how probable an answer is, given a question and some texts, and write one.

::

    protocol   what a reader is: requests, scores, generations
    wording    the prompt's words, and shorter prompts where one is too long
    local      a causal model that transformers loads, a GGUF file included
    endpoint   an OpenAI-compatible endpoint that scores given tokens
    answers    what such endpoints say about the tokens of a prompt, in either of two forms
    cache      scores and generations on disk, by content
    matching   how well a written answer fits the gold ones
    opening    the reader that a name means
"""
