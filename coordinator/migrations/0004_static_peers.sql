-- Devices with stock WireGuard. Their private keys are never here; a pre-shared key is, for members that talk to the
-- device have to be told it again whenever they come back. gateway is a node's id, or NULL when all members talk to it.
CREATE TABLE static_peers (
    network TEXT NOT NULL REFERENCES networks (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    wg_key TEXT NOT NULL,
    address_v4 TEXT NOT NULL,
    address_v6 TEXT NOT NULL,
    tags TEXT NOT NULL,
    psk TEXT,
    gateway TEXT,
    endpoint TEXT,
    keepalive BIGINT,
    created BIGINT NOT NULL,
    PRIMARY KEY (network, id),
    UNIQUE (network, name),
    UNIQUE (network, wg_key)
);
