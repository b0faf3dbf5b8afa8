-- Portable between SQLite and PostgreSQL: identities, keys and byte strings are TEXT (base32 or base64),
-- times are seconds since 1970, flags are 0 or 1.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE networks (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    prefix_v4 TEXT NOT NULL,
    prefix_v6 TEXT NOT NULL,
    mtu BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created BIGINT NOT NULL
);

-- The secret itself is never stored, only its SHA-256.
CREATE TABLE join_keys (
    id TEXT NOT NULL PRIMARY KEY,
    network TEXT NOT NULL REFERENCES networks (id),
    secret_digest TEXT NOT NULL,
    reusable BIGINT NOT NULL,
    tags TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    revoked BIGINT,
    uses BIGINT NOT NULL
);

CREATE TABLE nodes (
    network TEXT NOT NULL REFERENCES networks (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    wg_key TEXT NOT NULL,
    tls_key TEXT NOT NULL,
    address_v4 TEXT NOT NULL,
    address_v6 TEXT NOT NULL,
    tags TEXT NOT NULL,
    join_key TEXT NOT NULL,
    joined BIGINT NOT NULL,
    last_contact BIGINT NOT NULL,
    agent_version TEXT NOT NULL,
    PRIMARY KEY (network, id),
    UNIQUE (network, name),
    UNIQUE (network, wg_key),
    UNIQUE (network, tls_key)
);

-- An address that was given away once, with the time at which it came free; held back for a while after that.
CREATE TABLE addresses (
    network TEXT NOT NULL REFERENCES networks (id),
    address TEXT NOT NULL,
    node TEXT NOT NULL,
    freed BIGINT,
    PRIMARY KEY (network, address)
);

-- The patches that lead to each of the latest revisions: base64 of the CBOR of a PatchSet.
CREATE TABLE changes (
    network TEXT NOT NULL REFERENCES networks (id),
    revision BIGINT NOT NULL,
    patches TEXT NOT NULL,
    PRIMARY KEY (network, revision)
);

-- Each row's hash covers the row and the hash before it.
CREATE TABLE audit (
    seq BIGINT NOT NULL PRIMARY KEY,
    time BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    network TEXT,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL
);
