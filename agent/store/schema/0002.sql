-- 0002: the entries of one key without reading the whole log.
CREATE INDEX log_entry_by_key ON log_entry (key_name, seq) WHERE key_name IS NOT NULL;
