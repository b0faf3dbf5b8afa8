-- People who log in. `roles` is JSON; the password is hashed (Argon2id), the secret of one-time codes is not, for codes are
-- made of it; an invitation is known by the SHA-256 of what its link holds.
CREATE TABLE users (
    name TEXT NOT NULL PRIMARY KEY,
    roles TEXT NOT NULL,
    password_hash TEXT,
    totp_secret TEXT,
    invitation_digest TEXT,
    invitation_expires BIGINT,
    created BIGINT NOT NULL,
    disabled BIGINT,
    version BIGINT NOT NULL,
    era BIGINT NOT NULL
);

-- By which programs act for them; of the secret only the SHA-256 is kept.
CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL REFERENCES users (name),
    label TEXT NOT NULL,
    digest TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT
);
