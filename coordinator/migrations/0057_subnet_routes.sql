-- Local networks that nodes offer to forward to (`offered`), and which an administrator has approved, under `prefix` to the others.
CREATE TABLE subnet_routes (
    network TEXT NOT NULL,
    node TEXT NOT NULL,
    lan TEXT NOT NULL,
    offered BIGINT NOT NULL,
    since BIGINT NOT NULL,
    approved BIGINT,
    prefix TEXT,
    PRIMARY KEY (network, node, lan),
    FOREIGN KEY (network, node) REFERENCES nodes (network, id) ON DELETE CASCADE
);
