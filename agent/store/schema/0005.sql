-- 0005: what the key in use is compared with: a MAC of each escrowed version under a key of the
-- state folder, and its source as it was then. uid, gid and mode are NULL where it was no file.
CREATE TABLE fingerprint (
  key_name TEXT NOT NULL,
  key_version INTEGER NOT NULL,
  mac_key_id BLOB NOT NULL CHECK (length(mac_key_id) = 16),
  mac BLOB NOT NULL CHECK (length(mac) = 32),
  machine TEXT NOT NULL,
  source TEXT NOT NULL,
  uid INTEGER,
  gid INTEGER,
  mode INTEGER,
  time INTEGER NOT NULL,
  PRIMARY KEY (key_name, key_version)
) STRICT, WITHOUT ROWID;

-- The newest override of the gate for each key; the log has them all.
CREATE TABLE gate_override (
  key_name TEXT NOT NULL PRIMARY KEY,
  key_version INTEGER NOT NULL,
  time INTEGER NOT NULL,
  reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;
