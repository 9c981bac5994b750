"""From the body of an upload to documents in the store.

``bodies`` reads JSON, raw text, files and forms block by block and writes their texts into uploads, which are published
as documents in one step. Whatever is not plain text goes through ``parsing`` first.
"""
