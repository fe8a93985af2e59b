-- 0009: what a key at a LUKS2 volume is compared with, without any secret: SHA-256 over the volume's
-- UUID and the digest of its key; and where the key is the secret of a keyslot, over that keyslot.
-- keyslot and keyslot_hash are NULL where the escrowed key is the volume key itself.
CREATE TABLE luks_binding (
  key_name TEXT NOT NULL,
  key_version INTEGER NOT NULL,
  device TEXT NOT NULL,
  uuid TEXT NOT NULL,
  volume BLOB NOT NULL CHECK (length(volume) = 32),
  keyslot INTEGER,
  keyslot_hash BLOB CHECK (length(keyslot_hash) = 32),
  time INTEGER NOT NULL,
  PRIMARY KEY (key_name, key_version, device)
) STRICT, WITHOUT ROWID;

-- What other tools escrowed, as `import` found it: which kind, where, and what opens it (JSON without
-- any bytes of a key). item tells several at one place apart. sha256 is that of the foreign text.
CREATE TABLE foreign_escrow (
  place TEXT NOT NULL,
  item TEXT NOT NULL,
  kind TEXT NOT NULL,
  volume TEXT NOT NULL,
  opens_by TEXT NOT NULL,
  sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
  found INTEGER NOT NULL,
  PRIMARY KEY (place, item)
) STRICT, WITHOUT ROWID;
