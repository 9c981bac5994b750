"""The command line: ``main`` parses ``arguments`` and runs one of the ``commands``."""
