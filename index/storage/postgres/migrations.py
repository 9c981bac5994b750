"""The tables, in numbered steps: a new database takes all of them, an older one those that it lacks."""

from __future__ import annotations

import psycopg
from psycopg.rows import DictRow

from index.errors import FormatError

_TABLES = """
CREATE TABLE properties (name text COLLATE "C" PRIMARY KEY, value text NOT NULL);

-- How often the searchable documents have changed: whoever keeps a scope looks here before using it again.
CREATE TABLE changes (searchable bigint NOT NULL);
INSERT INTO changes VALUES (0);

-- The processes that work on this database. One whose time has run out counts as dead: others take over its work.
CREATE TABLE replicas (
    replica      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alive_until  timestamptz NOT NULL
);

-- Texts being received; the row goes when the document is published or the upload is given up.
CREATE TABLE uploads (
    text     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    touched  timestamptz NOT NULL DEFAULT now()
);

-- Any character may stand in a text, a title or an error, and U+0000 cannot stand in a text of PostgreSQL: they are
-- kept as their bytes in UTF-8.
CREATE TABLE texts (
    text   bigint NOT NULL,
    start  bigint NOT NULL,            -- character offset of the block
    block  bytea NOT NULL,
    PRIMARY KEY (text, start)
);

CREATE TABLE documents (
    uid         bigint PRIMARY KEY,
    id          text COLLATE "C" NOT NULL,
    collection  text COLLATE "C" NOT NULL,
    title       bytea,
    metadata    text NOT NULL,         -- JSON object in ASCII
    mode        text NOT NULL,         -- chunking
    max_tokens  bigint,
    sha256      text NOT NULL,         -- of the text in UTF-8
    characters  bigint NOT NULL,
    bytes       bigint NOT NULL,
    status      text NOT NULL CHECK (status IN ('queued', 'indexing', 'ready', 'failed')),
    progress    double precision NOT NULL DEFAULT 0,
    error       bytea,
    chunks      bigint,                -- null until the document is cut
    tokens      bigint,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    warnings    text NOT NULL,         -- JSON list of what was left out
    replaces    bigint,                -- the version that is searched until this one is ready, null for most
    text        bigint NOT NULL,
    owner       bigint                 -- the replica that indexes it
);
-- Numbers are drawn behind the lock of all writers, so they grow in the order in which documents become visible.
CREATE SEQUENCE uids OWNED BY documents.uid;
CREATE UNIQUE INDEX documents_by_id ON documents (id) WHERE replaces IS NULL;
CREATE UNIQUE INDEX documents_by_replaced ON documents (replaces) WHERE replaces IS NOT NULL;
CREATE INDEX documents_by_collection ON documents (collection, uid);
CREATE INDEX documents_by_title ON documents (title) WHERE title IS NOT NULL;
CREATE INDEX documents_waiting ON documents (uid) WHERE status IN ('queued', 'indexing');

-- Documents that are gone, but whose texts or points are still to be removed.
CREATE TABLE deleted (
    uid         bigint PRIMARY KEY,
    collection  text COLLATE "C" NOT NULL,
    text        bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    emptied     boolean NOT NULL DEFAULT false  -- its texts, chunks and places are removed
);
CREATE INDEX deleted_by_collection ON deleted (collection, uid);

-- The table of a document's chunks in blocks, of three little-endian numbers of eight bytes each: start, end, tokens.
CREATE TABLE chunks (
    uid    bigint NOT NULL,
    first  bigint NOT NULL,            -- number of the block's first chunk
    block  bytea NOT NULL,
    PRIMARY KEY (uid, first)
);
ALTER TABLE chunks ALTER COLUMN block SET STORAGE EXTERNAL;  -- a part of it can be read alone

-- Where the text from a character on stands in the file that it was read from.
CREATE TABLE places (
    uid       bigint NOT NULL,
    start     bigint NOT NULL,
    location  text NOT NULL,           -- JSON object in ASCII: page, label, headings, sheet, row
    PRIMARY KEY (uid, start)
);

-- The action towers whose vectors there are, one of which is searched: the property "space".
CREATE TABLE spaces (
    space        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint  text NOT NULL UNIQUE,
    dimension    integer NOT NULL
);

-- How many first chunks of a document have a vector in a space.
CREATE TABLE embedded (
    uid    bigint NOT NULL REFERENCES documents ON DELETE CASCADE,
    space  bigint NOT NULL REFERENCES spaces ON DELETE CASCADE,
    rows   bigint NOT NULL,
    PRIMARY KEY (uid, space)
);

-- Documents that are cut anew: points of the former cut go before they get others.
CREATE TABLE outdated (uid bigint PRIMARY KEY REFERENCES documents ON DELETE CASCADE);

CREATE TABLE feedback (
    number       bigint PRIMARY KEY,
    id           text NOT NULL UNIQUE,
    collection   text COLLATE "C" NOT NULL,
    question     bytea NOT NULL,
    answer       bytea,
    comment      bytea,
    checkpoint   text NOT NULL,        -- name of the one that was served
    fingerprint  text NOT NULL,
    created_at   timestamptz NOT NULL
);
CREATE SEQUENCE feedback_numbers OWNED BY feedback.number;
CREATE INDEX feedback_by_collection ON feedback (collection, number);

-- The chunks of a record, as they were when it was given.
CREATE TABLE judgements (
    feedback     bigint NOT NULL REFERENCES feedback ON DELETE CASCADE,
    document_id  text COLLATE "C" NOT NULL,
    chunk        bigint NOT NULL,
    text         bytea NOT NULL,
    helpful      boolean NOT NULL,
    PRIMARY KEY (feedback, document_id, chunk)
);
CREATE INDEX judgements_by_document ON judgements (document_id, feedback);

-- What was asked, where that is wanted.
CREATE TABLE questions (
    number         bigint PRIMARY KEY,
    id             text NOT NULL UNIQUE,
    collection     text COLLATE "C" NOT NULL,
    question       bytea NOT NULL,
    asked_at       timestamptz NOT NULL,
    checkpoint     text NOT NULL,
    fingerprint    text NOT NULL,
    chunks         jsonb NOT NULL,      -- document and number of each that was returned
    found_nothing  boolean NOT NULL,
    stopped_by     text NOT NULL,
    complete       double precision,
    hopeless       double precision,
    seconds        double precision NOT NULL,
    request_id     bytea NOT NULL
);
CREATE SEQUENCE question_numbers OWNED BY questions.number;
CREATE INDEX questions_by_collection ON questions (collection, number);
CREATE INDEX questions_by_time ON questions (asked_at);
"""

MIGRATIONS = (_TABLES,)
"""The steps from each version to the next; the first makes version 1 of nothing."""


def migrate(connection: psycopg.Connection[DictRow]) -> None:
    """Bring the tables to the current version, inside the caller's transaction, which holds the lock of all writers.

    Raises :class:`~index.errors.FormatError` where a newer version of this software has made them, and where the
    database cannot hold every text.
    """
    described = connection.execute(
        "SELECT current_setting('server_encoding') AS encoding, current_schema() AS schema"
    ).fetchone()
    assert described is not None
    if described["encoding"] != "UTF8" or described["schema"] is None:
        raise FormatError(
            f"The database has the encoding {described['encoding']} and the schema {described['schema']}; it needs "
            "UTF8, and a schema in its search_path. Create one: createdb --encoding=UTF8 --template=template0 qrag."
        )
    connection.execute("CREATE TABLE IF NOT EXISTS versions (version integer PRIMARY KEY, at timestamptz NOT NULL)")
    row = connection.execute("SELECT COALESCE(MAX(version), 0) AS version FROM versions").fetchone()
    version = 0 if row is None else int(row["version"])
    if version > len(MIGRATIONS):
        raise FormatError(
            f"The database has tables of version {version}; this version of the software reads up to "
            f"{len(MIGRATIONS)}. Start the version that made them. Nothing was changed."
        )
    for number, steps in enumerate(MIGRATIONS[version:], version + 1):
        connection.execute(steps)
        connection.execute("INSERT INTO versions VALUES (%s, now())", (number,))
