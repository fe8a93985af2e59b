-- 0007: by what a path was last proven, and the log entry that has the signed proof.
ALTER TABLE path_state ADD COLUMN proven_by TEXT NOT NULL DEFAULT '';
ALTER TABLE path_state ADD COLUMN proof_seq INTEGER;
