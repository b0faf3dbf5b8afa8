-- Versions of each network's policy; the last one is in force. Without a text everything is allowed.
CREATE TABLE policies (
    network TEXT NOT NULL,
    version BIGINT NOT NULL,
    text TEXT,
    time BIGINT NOT NULL,
    actor TEXT NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (network, version)
);
