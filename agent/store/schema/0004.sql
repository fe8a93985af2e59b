-- 0004: signed policies, each as it was set, with the files that belong to it. The one with the
-- greatest serial is in force. signers and next_signers: a threshold and verifier keys, one a line;
-- under the first it was accepted, under the second its successor is.
CREATE TABLE policy (
  serial INTEGER PRIMARY KEY CHECK (serial > 0),
  name TEXT NOT NULL,
  sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
  text BLOB NOT NULL,
  note TEXT NOT NULL,
  signers TEXT NOT NULL,
  next_signers TEXT NOT NULL,
  set_time INTEGER NOT NULL
) STRICT;
CREATE TRIGGER policy_insert BEFORE INSERT ON policy
  WHEN NEW.serial <= (SELECT coalesce(max(serial), 0) FROM policy)
  BEGIN SELECT raise(ABORT, 'the serial of a policy only grows'); END;
CREATE TRIGGER policy_update BEFORE UPDATE ON policy
  BEGIN SELECT raise(ABORT, 'policies are never changed'); END;
CREATE TRIGGER policy_delete BEFORE DELETE ON policy
  BEGIN SELECT raise(ABORT, 'policies are never deleted'); END;

CREATE TABLE policy_file (
  serial INTEGER NOT NULL REFERENCES policy (serial),
  name TEXT NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (serial, name)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER policy_file_insert BEFORE INSERT ON policy_file
  WHEN EXISTS (SELECT 1 FROM policy_file WHERE serial = NEW.serial AND name = NEW.name)
  BEGIN SELECT raise(ABORT, 'files of policies are never replaced'); END;
CREATE TRIGGER policy_file_update BEFORE UPDATE ON policy_file
  BEGIN SELECT raise(ABORT, 'files of policies are never changed'); END;
CREATE TRIGGER policy_file_delete BEFORE DELETE ON policy_file
  BEGIN SELECT raise(ABORT, 'files of policies are never deleted'); END;
