-- Each restore from a backup begins a new epoch; the first row is written at the first start. `base_seq` and `base_hash`
-- are the last row of the audit log that the epoch was begun with.
CREATE TABLE epochs (
    number BIGINT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL,
    began BIGINT NOT NULL,
    base_seq BIGINT NOT NULL,
    base_hash TEXT NOT NULL
);

-- Nodes that were removed for good. Ids are never given twice, so rows are never deleted.
CREATE TABLE tombstones (
    network TEXT NOT NULL REFERENCES networks (id),
    node TEXT NOT NULL,
    time BIGINT NOT NULL,
    PRIMARY KEY (network, node)
);

INSERT INTO tombstones (network, node, time)
    SELECT network, node, MAX(freed) FROM addresses
    WHERE freed IS NOT NULL AND node NOT IN (SELECT id FROM nodes)
    GROUP BY network, node;

-- How far the audit log of an epoch had got, as nodes have shown.
CREATE TABLE witnessed (
    epoch TEXT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL
);

-- URLs of the coordinator besides those in its settings.
CREATE TABLE urls (
    url TEXT NOT NULL PRIMARY KEY,
    added BIGINT NOT NULL
);

-- What the network's nodes were told last: a JSON list.
ALTER TABLE networks ADD COLUMN urls TEXT NOT NULL DEFAULT '[]';
