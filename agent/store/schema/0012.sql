-- 0012: rotations, each with the step that it is at: durable before the step is taken. One that ended
-- stays as it ended; one of a key at a time is under way.
CREATE TABLE rotation (
  key_name TEXT NOT NULL,
  key_version INTEGER NOT NULL,
  old_version INTEGER NOT NULL,
  step TEXT NOT NULL CHECK (step IN ('escrowed', 'proven', 'handing_over', 'handed_over',
                                     'confirmed', 'abandoned')),
  sink TEXT NOT NULL,
  command TEXT NOT NULL,
  process TEXT NOT NULL,
  started INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  PRIMARY KEY (key_name, key_version)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX rotation_open ON rotation (key_name)
  WHERE step NOT IN ('confirmed', 'abandoned');
CREATE TRIGGER rotation_insert BEFORE INSERT ON rotation
  WHEN EXISTS (SELECT 1 FROM rotation WHERE key_name = NEW.key_name
               AND (key_version = NEW.key_version OR step NOT IN ('confirmed', 'abandoned')))
  BEGIN SELECT raise(ABORT, 'a rotation of this key is under way'); END;
CREATE TRIGGER rotation_update BEFORE UPDATE ON rotation
  WHEN OLD.step IN ('confirmed', 'abandoned') OR NEW.key_name <> OLD.key_name
    OR NEW.key_version <> OLD.key_version OR NEW.old_version <> OLD.old_version
  BEGIN SELECT raise(ABORT, 'rotations that ended are never changed'); END;
CREATE TRIGGER rotation_delete BEFORE DELETE ON rotation
  BEGIN SELECT raise(ABORT, 'rotations are never deleted'); END;

-- Versions that were destroyed, each with the entry of the log that says so: without that entry
-- there is no such row, and without such a row an envelope is never changed. What is left of a
-- destroyed one is its row with an empty body. (An entry is canonical, and a quote within one of its
-- texts is escaped: what is looked for stands in no text. JSON functions may not be used here.)
CREATE TABLE destroyed (
  key_name TEXT NOT NULL,
  key_version INTEGER NOT NULL,
  log_seq INTEGER NOT NULL REFERENCES log_entry (seq),
  PRIMARY KEY (key_name, key_version)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER destroyed_insert BEFORE INSERT ON destroyed
  WHEN EXISTS (SELECT 1 FROM destroyed WHERE key_name = NEW.key_name
               AND key_version = NEW.key_version)
    OR NOT EXISTS (SELECT 1 FROM log_entry WHERE seq = NEW.log_seq
                   AND instr(CAST(bytes AS TEXT), '"type":"key.destroyed","outcome":"success"')
                   AND instr(CAST(bytes AS TEXT), '"key":{"name":"' || NEW.key_name ||
                             '","version":' || NEW.key_version || '},"envelope":{"id":"'))
  BEGIN SELECT raise(ABORT, 'what is destroyed is destroyed with its log entry'); END;
CREATE TRIGGER destroyed_update BEFORE UPDATE ON destroyed
  BEGIN SELECT raise(ABORT, 'what was destroyed stays destroyed'); END;
CREATE TRIGGER destroyed_delete BEFORE DELETE ON destroyed
  BEGIN SELECT raise(ABORT, 'what was destroyed stays destroyed'); END;

DROP TRIGGER envelope_update;
CREATE TRIGGER envelope_update BEFORE UPDATE ON envelope
  WHEN length(NEW.bytes) <> 0 OR NEW.id <> OLD.id OR NEW.key_name <> OLD.key_name
    OR NEW.key_version <> OLD.key_version OR NEW.revision <> OLD.revision
    OR NEW.envelope_id <> OLD.envelope_id OR NEW.sha256 <> OLD.sha256
    OR NEW.created <> OLD.created OR NEW.log_seq <> OLD.log_seq
    OR NOT EXISTS (SELECT 1 FROM destroyed WHERE key_name = OLD.key_name
                   AND key_version = OLD.key_version)
  BEGIN SELECT raise(ABORT, 'envelopes are never changed'); END;
-- ROLLBACK, as 0011 says of all that an envelope's insertion may be refused by.
CREATE TRIGGER envelope_insert_destroyed BEFORE INSERT ON envelope
  WHEN EXISTS (SELECT 1 FROM destroyed WHERE key_name = NEW.key_name
               AND key_version = NEW.key_version)
  BEGIN SELECT raise(ROLLBACK, 'this version was destroyed'); END;
