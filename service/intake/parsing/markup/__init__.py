"""Markup as text: a tree of elements becomes blocks of lines.

``layout`` walks an HTML tree as a browser would lay it out; ``tables`` turns tables into rows that say what their
values are, ``mathematics`` formulas into a line each. What all of them make are :class:`~.blocks.Block` values.
"""
