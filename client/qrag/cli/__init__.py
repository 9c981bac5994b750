"""The command ``qrag``: index files, ask questions and look after the service from a shell."""
