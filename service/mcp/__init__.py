"""The Model Context Protocol: retrieval as tools for language models.

``server`` speaks the protocol at ``/mcp``, finds the tool that is called, and looks whether the key has the tool's
right. ``tools`` has for each tool its right, its words for the model, the models of its arguments and its result, and
what it does, which is to ask :mod:`service.retrieval` or to read a document.

To add a tool: its two models, its function, and its entry in :data:`~service.mcp.tools.TOOLS`.
"""
