"""Answers that a language model writes from retrieved passages.

``answers`` has :mod:`service.retrieval` find the passages, puts them into a prompt for the model of
:mod:`service.language_model`, and looks up which of them the text cites.
"""
