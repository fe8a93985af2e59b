-- 0011: many rows of history in one commit without SQLite's statement journal, a copy of each page
-- of 16 KB before the first change. It keeps one where a statement with triggers may fail alone:
-- here a refusal, and each constraint of INSERT OR ROLLBACK, ends the whole transaction instead,
-- which is what its writer does next. What is refused is the same as before.
DROP TRIGGER log_entry_insert;
CREATE TRIGGER log_entry_insert BEFORE INSERT ON log_entry
  WHEN NEW.seq <> (SELECT coalesce(max(seq) + 1, 0) FROM log_entry)
  BEGIN SELECT raise(ROLLBACK, 'log entries are numbered without gaps'); END;

DROP TRIGGER checkpoint_insert;
CREATE TRIGGER checkpoint_insert BEFORE INSERT ON checkpoint
  WHEN NEW.size <= (SELECT coalesce(max(size), 0) FROM checkpoint)
  BEGIN SELECT raise(ROLLBACK, 'checkpoints only grow'); END;

DROP TRIGGER envelope_insert;
CREATE TRIGGER envelope_insert BEFORE INSERT ON envelope
  WHEN EXISTS (SELECT 1 FROM envelope WHERE id = NEW.id
               OR (key_name = NEW.key_name AND key_version = NEW.key_version
                   AND revision = NEW.revision))
  BEGIN SELECT raise(ROLLBACK, 'envelopes are never replaced'); END;

-- A foreign key that is not deferred may fail a statement alone too. Its triggers go with a table.
CREATE TABLE path_set_11 (
  envelope_row INTEGER PRIMARY KEY REFERENCES envelope (id) DEFERRABLE INITIALLY DEFERRED,
  digest BLOB NOT NULL CHECK (length(digest) = 32)
) STRICT;
INSERT INTO path_set_11 (envelope_row, digest) SELECT envelope_row, digest FROM path_set;
DROP TABLE path_set;
ALTER TABLE path_set_11 RENAME TO path_set;
CREATE TRIGGER path_set_insert BEFORE INSERT ON path_set
  WHEN EXISTS (SELECT 1 FROM path_set WHERE envelope_row = NEW.envelope_row)
  BEGIN SELECT raise(ROLLBACK, 'path sets are never replaced'); END;
CREATE TRIGGER path_set_update BEFORE UPDATE ON path_set
  BEGIN SELECT raise(ABORT, 'path sets are never changed'); END;
CREATE TRIGGER path_set_delete BEFORE DELETE ON path_set
  BEGIN SELECT raise(ABORT, 'path sets are never deleted'); END;
