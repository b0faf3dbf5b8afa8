-- What is kept for a while only, where several coordinators share the database: sessions of the pages, logins that are under
-- way, laptops that ask, links of owners, one-time codes that were used. `id` is the SHA-256 of a secret (or of what it is
-- about); nothing here lets anybody in.
CREATE TABLE shelf (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    value TEXT NOT NULL,
    made BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
