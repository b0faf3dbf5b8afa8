-- Who logs in by a provider's word is known by issuer and subject; `groups` (JSON) is what it said of them last.
ALTER TABLE users ADD COLUMN issuer TEXT;
ALTER TABLE users ADD COLUMN subject TEXT;
ALTER TABLE users ADD COLUMN person_groups TEXT;
CREATE UNIQUE INDEX users_by_subject ON users (issuer, subject);
