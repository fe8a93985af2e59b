-- 0010: recovery keys that are registered here. `record` is its JSON to the byte, which sha256 is of:
-- envelopes are made from this row, and never from another envelope. `drilled` is when its private
-- half was last opened here, drill_seq the log entry that tells of it; both go with a new record.
CREATE TABLE recovery_key (
  name TEXT NOT NULL PRIMARY KEY,
  thumbprint TEXT NOT NULL,
  sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
  record TEXT NOT NULL,
  added INTEGER NOT NULL,
  retired INTEGER,
  drilled INTEGER,
  drill_seq INTEGER
) STRICT, WITHOUT ROWID;
CREATE TRIGGER recovery_key_delete BEFORE DELETE ON recovery_key
  BEGIN SELECT raise(ABORT, 'recovery keys are marked as retired, never deleted'); END;
