-- Since when a member counts as ended because it was not heard of for too long; it may be approved again.
ALTER TABLE nodes ADD COLUMN lapsed BIGINT;
