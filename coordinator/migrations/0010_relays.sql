-- Relays besides the coordinator's own. `kind` is 'turn' for another TURN server, whose credentials are made of `secret`.
CREATE TABLE relays (
    name TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    host TEXT NOT NULL,
    udp_port BIGINT NOT NULL,
    tls_port BIGINT,
    secret TEXT NOT NULL,
    key_digest TEXT,
    added BIGINT NOT NULL
);
