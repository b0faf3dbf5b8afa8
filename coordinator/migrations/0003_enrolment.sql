-- Choices of a join key: seconds after which an absent node that joined by it is removed (absent: never), and whether
-- an administrator has to approve each node.
ALTER TABLE join_keys ADD COLUMN ephemeral BIGINT;
ALTER TABLE join_keys ADD COLUMN approve BIGINT NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN ephemeral BIGINT;

-- Who has used a join key; the node may be gone since.
CREATE TABLE key_uses (
    join_key TEXT NOT NULL REFERENCES join_keys (id),
    node TEXT NOT NULL,
    name TEXT NOT NULL,
    time BIGINT NOT NULL,
    PRIMARY KEY (join_key, node)
);

-- Nodes that wait for an administrator's approval. `former` is 1 for a member whose time had ended.
CREATE TABLE waiting_nodes (
    network TEXT NOT NULL REFERENCES networks (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    name_required BIGINT NOT NULL,
    wg_key TEXT NOT NULL,
    tls_key TEXT NOT NULL,
    join_key TEXT NOT NULL,
    asked BIGINT NOT NULL,
    heard BIGINT NOT NULL,
    rejected BIGINT,
    former BIGINT NOT NULL,
    address TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    PRIMARY KEY (network, id),
    UNIQUE (network, wg_key),
    UNIQUE (network, tls_key)
);

-- Nodes that were members, why they are not any more, and since when; forgotten after a while.
CREATE TABLE departures (
    network TEXT NOT NULL REFERENCES networks (id),
    node TEXT NOT NULL,
    reason TEXT NOT NULL,
    time BIGINT NOT NULL,
    PRIMARY KEY (network, node)
);
