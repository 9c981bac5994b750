"""The package's exceptions, one tree.

::

    QRagError
    ├── CheckpointError      a checkpoint cannot be read, or is not what it claims
    ├── StoreError           the data directory cannot be used as it is
    │   ├── FormatError      written by another version of this software
    │   ├── DamagedStore     a file is missing, truncated or inconsistent
    │   ├── CheckpointMismatch  the stored vectors come from another action tower
    │   ├── StoreInUse       another process holds the data directory
    │   └── DiskFull         no space left to write
    ├── StorageUnavailable   a database or a vector engine is lost or too slow
    ├── UnknownDocument      no document with this id
    ├── UnknownCollection    no document in a collection of this name
    ├── UnknownFeedback      no feedback with this id
    ├── UnknownQuestion      no question is kept with this id
    ├── DocumentExists       the id is taken by other content
    ├── BackupError          a backup cannot be made here, or is incomplete
    ├── MovingError          an export cannot be made here, or says what it may not
    ├── ChunkTooLong         a stored chunk is longer than a checkpoint reads
    └── QueueFull            too many documents wait to be indexed
"""


class QRagError(Exception):
    """Base of the package's exceptions; the message says what to do."""


class CheckpointError(QRagError):
    """A checkpoint directory is missing a file, malformed, or fails its checksum."""


class StoreError(QRagError):
    """The data directory cannot be used as it is. Nothing in it has been changed."""


class FormatError(StoreError):
    """The data directory was written by a version of this software with another format."""


class DamagedStore(StoreError):
    """A file of the data directory is missing, truncated or inconsistent."""


class CheckpointMismatch(StoreError):
    """The stored vectors were made by another action tower than the loaded checkpoint's."""


class StoreInUse(StoreError):
    """Another process has the data directory open."""


class DiskFull(StoreError):
    """The file system of the data directory has no space left."""


class StorageUnavailable(QRagError):
    """A database or a vector engine cannot be reached, or answers too slowly. The call can be repeated."""


class UnknownDocument(QRagError):
    """There is no document with this id."""


class UnknownCollection(QRagError):
    """There is no collection of this name."""


class UnknownFeedback(QRagError):
    """There is no feedback with this id."""


class UnknownQuestion(QRagError):
    """There is no kept question with this id."""


class DocumentExists(QRagError):
    """A document with this id but other content exists already."""


class BackupError(QRagError):
    """A backup cannot be made or restored."""


class MovingError(QRagError):
    """An export cannot be made or finished, or is damaged, or does not fit the storage that it is imported into."""


class ChunkTooLong(QRagError):
    """A stored chunk is longer than another action tower reads."""


class QueueFull(QRagError):
    """Too many documents wait to be indexed."""
