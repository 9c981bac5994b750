"""Moving everything of a storage to another one, whatever their engines are, through a folder of plain files.

* :mod:`~index.storage.moving.format` says what such a folder holds, and :mod:`~index.storage.moving.files` how its
  files are read and written. Nothing in it needs this project to be read: JSON lines, UTF-8 and NumPy's ``.npy``.
* :mod:`~index.storage.moving.exporting` writes one, part by part, and goes on where it was when it is called again.
* :mod:`~index.storage.moving.checking` reads one that a stranger may have made: before anything is changed, every file
  has its checksum and says what it may say.
* :mod:`~index.storage.moving.importing` puts its documents into a storage, and
  :mod:`~index.storage.moving.verifying` compares what is there then.

All of it speaks to the storage protocols alone. What cannot be searched yet, or has failed, is moved as a text with
what is known about it; where it is to be searched it is cut and embedded.
"""
