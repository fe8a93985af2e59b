-- 0001: the first schema. Times are Unix seconds. What is history refuses UPDATE and DELETE; the
-- BEFORE INSERT triggers keep INSERT OR REPLACE, which fires no DELETE trigger, from rewriting it.

CREATE TABLE meta (
  name TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE log_entry (
  seq INTEGER PRIMARY KEY,
  leaf_hash BLOB NOT NULL CHECK (length(leaf_hash) = 32),
  key_name TEXT,
  bytes BLOB NOT NULL
) STRICT;
CREATE TRIGGER log_entry_insert BEFORE INSERT ON log_entry
  WHEN NEW.seq <> (SELECT coalesce(max(seq) + 1, 0) FROM log_entry)
  BEGIN SELECT raise(ABORT, 'log entries are numbered without gaps'); END;
CREATE TRIGGER log_entry_update BEFORE UPDATE ON log_entry
  BEGIN SELECT raise(ABORT, 'log entries are never changed'); END;
CREATE TRIGGER log_entry_delete BEFORE DELETE ON log_entry
  BEGIN SELECT raise(ABORT, 'log entries are never deleted'); END;

-- id = level * 2^56 + index, so that a tile of 8 KB lies in one page of one tree.
CREATE TABLE tile (
  id INTEGER PRIMARY KEY,
  bytes BLOB NOT NULL CHECK (length(bytes) % 32 = 0 AND length(bytes) BETWEEN 32 AND 8192)
) STRICT;
CREATE TRIGGER tile_delete BEFORE DELETE ON tile
  BEGIN SELECT raise(ABORT, 'tiles are never deleted'); END;
CREATE TRIGGER tile_update BEFORE UPDATE ON tile
  WHEN NEW.id <> OLD.id OR length(NEW.bytes) <= length(OLD.bytes)
  BEGIN SELECT raise(ABORT, 'tiles only grow'); END;

CREATE TABLE checkpoint (
  size INTEGER PRIMARY KEY,
  p256_signed INTEGER NOT NULL,
  note TEXT NOT NULL
) STRICT;
CREATE TRIGGER checkpoint_insert BEFORE INSERT ON checkpoint
  WHEN NEW.size <= (SELECT coalesce(max(size), 0) FROM checkpoint)
  BEGIN SELECT raise(ABORT, 'checkpoints only grow'); END;
CREATE TRIGGER checkpoint_update BEFORE UPDATE ON checkpoint
  BEGIN SELECT raise(ABORT, 'checkpoints are never changed'); END;
CREATE TRIGGER checkpoint_delete BEFORE DELETE ON checkpoint
  BEGIN SELECT raise(ABORT, 'checkpoints are never deleted'); END;

CREATE TABLE imported_event (
  event_id BLOB NOT NULL PRIMARY KEY CHECK (length(event_id) = 16),
  seq INTEGER NOT NULL REFERENCES log_entry (seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE envelope (
  id INTEGER PRIMARY KEY,
  key_name TEXT NOT NULL,
  key_version INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  envelope_id TEXT NOT NULL,
  sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
  created INTEGER NOT NULL,
  log_seq INTEGER NOT NULL REFERENCES log_entry (seq) DEFERRABLE INITIALLY DEFERRED,
  bytes BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX envelope_by_key ON envelope (key_name, key_version, revision);
CREATE TRIGGER envelope_insert BEFORE INSERT ON envelope
  WHEN EXISTS (SELECT 1 FROM envelope WHERE id = NEW.id
               OR (key_name = NEW.key_name AND key_version = NEW.key_version
                   AND revision = NEW.revision))
  BEGIN SELECT raise(ABORT, 'envelopes are never replaced'); END;
CREATE TRIGGER envelope_update BEFORE UPDATE ON envelope
  BEGIN SELECT raise(ABORT, 'envelopes are never changed'); END;
CREATE TRIGGER envelope_delete BEFORE DELETE ON envelope
  BEGIN SELECT raise(ABORT, 'envelopes are never deleted'); END;

CREATE TABLE token (
  name TEXT NOT NULL PRIMARY KEY,
  uri TEXT NOT NULL,
  module TEXT NOT NULL,
  spki BLOB NOT NULL,
  evidence TEXT NOT NULL,
  added INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Patterns stand one a line; none means any.
CREATE TABLE trust (
  thumbprint TEXT NOT NULL PRIMARY KEY,
  spki BLOB NOT NULL,
  name TEXT NOT NULL,
  hosts TEXT NOT NULL,
  keys TEXT NOT NULL,
  added INTEGER NOT NULL,
  removed INTEGER
) STRICT, WITHOUT ROWID;
CREATE TRIGGER trust_delete BEFORE DELETE ON trust
  BEGIN SELECT raise(ABORT, 'trusted agents are marked as removed, never deleted'); END;

CREATE TABLE path_state (
  key_name TEXT NOT NULL,
  key_version INTEGER NOT NULL,
  path_id TEXT NOT NULL,
  proven INTEGER,
  proven_revision INTEGER NOT NULL,
  failed INTEGER,
  failure TEXT NOT NULL,
  PRIMARY KEY (key_name, key_version, path_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE destination (
  path TEXT NOT NULL PRIMARY KEY,
  key_name TEXT NOT NULL,
  key_version INTEGER NOT NULL,
  previous_path TEXT NOT NULL,
  time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
