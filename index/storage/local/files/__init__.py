"""The files of embeddings: segments with their codes, their posting lists, and how a file is written durably."""
