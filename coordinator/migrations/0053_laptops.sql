-- Laptops are somebody's (`owner`), who has to log in again from time to time (`validated`: when they last did; `login_due`:
-- since when it is overdue). Join keys that a login has made make laptops.
ALTER TABLE nodes ADD COLUMN owner TEXT;
ALTER TABLE nodes ADD COLUMN owner_groups TEXT;
ALTER TABLE nodes ADD COLUMN validated BIGINT;
ALTER TABLE nodes ADD COLUMN login_due BIGINT;
ALTER TABLE join_keys ADD COLUMN owner TEXT;
