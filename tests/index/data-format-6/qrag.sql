BEGIN TRANSACTION;
CREATE TABLE chunks (
    uid     INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    end     INTEGER NOT NULL,
    tokens  INTEGER NOT NULL,
    PRIMARY KEY (uid, number)
) WITHOUT ROWID;
INSERT INTO "chunks" VALUES(1,0,0,21,4);
INSERT INTO "chunks" VALUES(1,1,22,38,3);
INSERT INTO "chunks" VALUES(1,2,39,57,4);
INSERT INTO "chunks" VALUES(2,0,0,16,3);
CREATE TABLE deleted (uid INTEGER PRIMARY KEY);
CREATE TABLE documents (
    uid         INTEGER PRIMARY KEY,   -- never used again, so late work on a deleted document finds nothing
    id          TEXT NOT NULL,
    collection  TEXT NOT NULL,
    title       TEXT,
    metadata    TEXT NOT NULL,         -- JSON object
    mode        TEXT NOT NULL,         -- chunking
    max_tokens  INTEGER,
    sha256      TEXT NOT NULL,         -- of the text in UTF-8
    characters  INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('queued', 'indexing', 'ready', 'failed')),
    error       TEXT,
    chunks      INTEGER,               -- null until the document is cut
    tokens      INTEGER,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    warnings    TEXT NOT NULL,         -- JSON list of what was left out
    replaces    INTEGER                -- the version that is searched until this one is ready, null for most
);
INSERT INTO "documents" VALUES(1,'lease','office','Lease','{"tags": ["a"], "year": 2024}','lines',NULL,'0a619ccea1945dbf02ba7f2cb4a8fa6125bbfd427bd65246c2df0f5ebb7ef6f7',57,67,'ready',NULL,3,11,'2026-11-26T09:03:24.802+00:00','2026-11-26T09:03:24.838+00:00','["Page 2 has no text."]',NULL);
INSERT INTO "documents" VALUES(2,'letter','default',NULL,'{}','lines',NULL,'784fcc637d37815e865ae6e32b2693d7253cc679d452c36a18392082ff455a7a',16,16,'ready',NULL,1,3,'2026-11-26T09:03:24.805+00:00','2026-11-26T09:03:24.838+00:00','[]',NULL);
INSERT INTO "documents" VALUES(3,'late','default',NULL,'{}','lines',NULL,'123f51258b8c33a3ab776904e5893471dc7edd7a6d1d75dbd7ca6d98dcd467ad',20,20,'queued',NULL,NULL,NULL,'2026-11-26T09:03:24.809+00:00','2026-11-26T09:03:24.809+00:00','[]',NULL);
INSERT INTO "documents" VALUES(4,'lease','office','Lease','{"tags": ["a"], "year": 2026}','lines',NULL,'fab1214cbea2a776af9baa1450cdc60023fb89b4c8deca23623a523dd2f7869a',39,39,'queued',NULL,NULL,NULL,'2026-11-30T14:30:00.000+00:00','2026-11-30T14:30:00.000+00:00','[]',1);
CREATE TABLE feedback (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    collection   TEXT NOT NULL,
    question     TEXT NOT NULL,
    answer       TEXT,
    comment      TEXT,
    checkpoint   TEXT NOT NULL,        -- name of the one that was served
    fingerprint  TEXT NOT NULL,
    created_at   TEXT NOT NULL
);
INSERT INTO "feedback" VALUES(3,'fb-0123456789abcdef01234567','office','Who signed the lease?','Ana.',NULL,'tiny','f1','2026-11-30T20:50:00.000+00:00');
CREATE TABLE judgements (
    feedback     INTEGER NOT NULL REFERENCES feedback (number) ON DELETE CASCADE,
    document_id  TEXT NOT NULL,
    chunk        INTEGER NOT NULL,
    text         TEXT NOT NULL,
    helpful      INTEGER NOT NULL,
    PRIMARY KEY (feedback, document_id, chunk)
);
INSERT INTO "judgements" VALUES(3,'lease',0,'Ana signed the lease.',1);
INSERT INTO "judgements" VALUES(3,'lease',1,'Bruno kept bees.',0);
CREATE TABLE pieces (
    uid          INTEGER NOT NULL,
    space        INTEGER NOT NULL REFERENCES spaces (space),
    first_chunk  INTEGER NOT NULL,
    segment      INTEGER NOT NULL REFERENCES segments (segment),
    first_row    INTEGER NOT NULL,
    rows         INTEGER NOT NULL,
    PRIMARY KEY (uid, space, first_chunk)
) WITHOUT ROWID;
INSERT INTO "pieces" VALUES(1,1,0,1,0,3);
INSERT INTO "pieces" VALUES(2,1,0,1,3,1);
CREATE TABLE places (
    uid       INTEGER NOT NULL,
    start     INTEGER NOT NULL,
    location  TEXT NOT NULL,           -- JSON object: page, label, headings, sheet, row
    PRIMARY KEY (uid, start)
) WITHOUT ROWID;
INSERT INTO "places" VALUES(1,0,'{"page":1}');
INSERT INTO "places" VALUES(1,22,'{"page":3,"headings":["Bees"]}');
CREATE TABLE properties (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "properties" VALUES('space','1');
CREATE TABLE questions (
    number         INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT NOT NULL UNIQUE,
    collection     TEXT NOT NULL,
    question       TEXT NOT NULL,
    asked_at       TEXT NOT NULL,
    checkpoint     TEXT NOT NULL,      -- name of the one that answered
    fingerprint    TEXT NOT NULL,
    chunks         TEXT NOT NULL,      -- JSON list of those returned: [id of the document, number]
    found_nothing  INTEGER NOT NULL,
    stopped_by     TEXT NOT NULL,
    complete       REAL,
    hopeless       REAL,
    seconds        REAL NOT NULL,
    request_id     TEXT NOT NULL
);
INSERT INTO "questions" VALUES(7,'qu-0123456789abcdef01234567','office','Who signed the lease?','2026-03-01T09:00:00.250+00:00','tiny','f1','[["lease", 1], ["lease", 0]]',0,'sufficient',0.75,0.125,0.5,'r1');
CREATE TABLE segments (
    segment   INTEGER PRIMARY KEY AUTOINCREMENT,
    rows      INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    max_norm  REAL NOT NULL,           -- largest Euclidean norm of its vectors
    space     INTEGER NOT NULL DEFAULT 1
);
INSERT INTO "segments" VALUES(1,4,173,9.75640773773193359375e+00,1);
CREATE TABLE spaces (
    space        INTEGER PRIMARY KEY,
    fingerprint  TEXT NOT NULL UNIQUE,
    dimension    INTEGER NOT NULL
);
INSERT INTO "spaces" VALUES(1,'words',8);
CREATE TABLE texts (
    uid    INTEGER NOT NULL,
    start  INTEGER NOT NULL,           -- character offset of the block
    text   TEXT NOT NULL,
    PRIMARY KEY (uid, start)
);
INSERT INTO "texts" VALUES(1,0,'Ana signed the lease.
Bruno kept bees.
Ärger im Büro 👩‍👧.');
INSERT INTO "texts" VALUES(2,0,'One letter only.');
INSERT INTO "texts" VALUES(3,0,'It was still queued.');
INSERT INTO "texts" VALUES(4,0,'Ana signed the lease.
Bruno kept goats.');
CREATE TABLE uploads (uid INTEGER PRIMARY KEY AUTOINCREMENT);
CREATE UNIQUE INDEX documents_by_id ON documents (id) WHERE replaces IS NULL;
CREATE UNIQUE INDEX documents_by_replaced ON documents (replaces) WHERE replaces IS NOT NULL;
CREATE INDEX documents_by_collection ON documents (collection, uid);
CREATE INDEX documents_by_status ON documents (status, uid);
CREATE INDEX feedback_by_collection ON feedback (collection, number);
CREATE INDEX feedback_by_question ON feedback (question, collection);
CREATE INDEX judgements_by_document ON judgements (document_id, feedback);
CREATE INDEX pieces_by_segment ON pieces (segment);
CREATE INDEX questions_by_collection ON questions (collection, number);
CREATE INDEX questions_by_time ON questions (asked_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('uploads',4);
INSERT INTO "sqlite_sequence" VALUES('segments',1);
INSERT INTO "sqlite_sequence" VALUES('feedback',3);
INSERT INTO "sqlite_sequence" VALUES('questions',7);
COMMIT;
PRAGMA user_version=6;
