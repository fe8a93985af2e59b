-- 0006: how often each counted type of event occurred up to a checkpoint, so that a monitor does not
-- read the log; NULL in rows of older versions. It is no part of what is signed.
ALTER TABLE checkpoint ADD COLUMN counts TEXT;
