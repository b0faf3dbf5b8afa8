-- Since when an administrator has kept a member out; it keeps its name and addresses meanwhile.
ALTER TABLE nodes ADD COLUMN disabled BIGINT;
