-- 0008: which paths an envelope is under, so that what-if reads one envelope for all that are under
-- the same. None for envelopes of before; those are read one by one.
CREATE TABLE path_set (
  envelope_row INTEGER PRIMARY KEY REFERENCES envelope (id),
  digest BLOB NOT NULL CHECK (length(digest) = 32)
) STRICT;
CREATE TRIGGER path_set_insert BEFORE INSERT ON path_set
  WHEN EXISTS (SELECT 1 FROM path_set WHERE envelope_row = NEW.envelope_row)
  BEGIN SELECT raise(ABORT, 'path sets are never replaced'); END;
CREATE TRIGGER path_set_update BEFORE UPDATE ON path_set
  BEGIN SELECT raise(ABORT, 'path sets are never changed'); END;
CREATE TRIGGER path_set_delete BEFORE DELETE ON path_set
  BEGIN SELECT raise(ABORT, 'path sets are never deleted'); END;
