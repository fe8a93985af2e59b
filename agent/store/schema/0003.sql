-- 0003: where a token's PIN is found (RFC 7512 pin-source): a file's absolute path, or ''.
ALTER TABLE token ADD COLUMN pin_source TEXT NOT NULL DEFAULT '';
