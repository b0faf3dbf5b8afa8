BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'initial','2026-11-22 22:14:33',1,X'D18FEC472982B5CBAA364D0EAB13A047FCDBCC0D1A0EFC5262966B3E3B6CA90236811CB76EBA012B9FB39FBDAB776F82',11110218);
CREATE TABLE addresses (
    network TEXT NOT NULL REFERENCES networks (id),
    address TEXT NOT NULL,
    node TEXT NOT NULL,
    freed BIGINT,
    PRIMARY KEY (network, address)
);
INSERT INTO "addresses" VALUES('yzuraem3fghsibzl','10.213.0.2','xb7ievpot5biqb63',NULL);
INSERT INTO "addresses" VALUES('yzuraem3fghsibzl','fdf6:8496:5a3d:eb4b:e271:f0e:f3fc:b3c2','xb7ievpot5biqb63',NULL);
INSERT INTO "addresses" VALUES('yzuraem3fghsibzl','10.213.0.3','rzzappnkmmloa57z',NULL);
INSERT INTO "addresses" VALUES('yzuraem3fghsibzl','fdf6:8496:5a3d:eb4b:5719:e723:9607:1a05','rzzappnkmmloa57z',NULL);
INSERT INTO "addresses" VALUES('yzuraem3fghsibzl','10.213.0.4','yqstixavr3swya2x',1795385673);
INSERT INTO "addresses" VALUES('yzuraem3fghsibzl','fdf6:8496:5a3d:eb4b:d790:e7b6:6e3c:4164','yqstixavr3swya2x',1795385673);
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
INSERT INTO "audit" VALUES(1,1795385673,'coordinator','network.created','yzuraem3fghsibzl','lab','{"mtu":1280,"prefix_v4":"10.213.0.0/16","prefix_v6":"fdf6:8496:5a3d:eb4b::/64"}','0000000000000000000000000000000000000000000000000000000000000000','64011bc1d8f8c8ae3ce550f3c1e77a208cb58c2963b8e7d89602387a15d2317d');
INSERT INTO "audit" VALUES(2,1795385673,'uid:0','key.created','yzuraem3fghsibzl','5zqollns','{"expires":null,"reusable":true,"tags":["arm"]}','64011bc1d8f8c8ae3ce550f3c1e77a208cb58c2963b8e7d89602387a15d2317d','0a7b0b916f6e07524ce338b33e20c64c40e3de3950d1653274b2904b656f256a');
INSERT INTO "audit" VALUES(3,1795385673,'node:xb7ievpot5biqb63','node.joined','yzuraem3fghsibzl','member','{"address_v4":"10.213.0.2","address_v6":"fdf6:8496:5a3d:eb4b:e271:f0e:f3fc:b3c2","key":"5zqollns","node":"xb7ievpot5biqb63","wg_key":"7YiHgHLKC1GfsBwPEuzEvz5kvQz7KtW6l7rJw7+DFl8="}','0a7b0b916f6e07524ce338b33e20c64c40e3de3950d1653274b2904b656f256a','0e80e073fb437b81ede58355e6aa7312a7e9d31add10df4643cbc0b084fec3c1');
INSERT INTO "audit" VALUES(4,1795385673,'node:rzzappnkmmloa57z','node.joined','yzuraem3fghsibzl','other','{"address_v4":"10.213.0.3","address_v6":"fdf6:8496:5a3d:eb4b:5719:e723:9607:1a05","key":"5zqollns","node":"rzzappnkmmloa57z","wg_key":"HdxzmIg66XbLqxk+QZV3aiVDQ9OFvCoDK5e6YSnPShI="}','0e80e073fb437b81ede58355e6aa7312a7e9d31add10df4643cbc0b084fec3c1','d12e7a6e03fc9d7e4ffcc8ec17b3bf37b4ca9620b99ac48b81af0217c49a906e');
INSERT INTO "audit" VALUES(5,1795385673,'node:yqstixavr3swya2x','node.joined','yzuraem3fghsibzl','removed','{"address_v4":"10.213.0.4","address_v6":"fdf6:8496:5a3d:eb4b:d790:e7b6:6e3c:4164","key":"5zqollns","node":"yqstixavr3swya2x","wg_key":"EI9DRo4FJAj7zzgAFh5mNcBjLP/3DjyqgiUIHsVY5l8="}','d12e7a6e03fc9d7e4ffcc8ec17b3bf37b4ca9620b99ac48b81af0217c49a906e','c2877a023b4ebcbe7b6c5b312e7cc06a6ddee3a65df0efe91707db64cb22d997');
INSERT INTO "audit" VALUES(6,1795385673,'uid:0','node.removed','yzuraem3fghsibzl','removed','{"address_v4":"10.213.0.4","address_v6":"fdf6:8496:5a3d:eb4b:d790:e7b6:6e3c:4164","node":"yqstixavr3swya2x"}','c2877a023b4ebcbe7b6c5b312e7cc06a6ddee3a65df0efe91707db64cb22d997','347142786ad61c30c8d36c7911120e8d9d0dc1ef59219552b1863e048c218310');
CREATE TABLE changes (
    network TEXT NOT NULL REFERENCES networks (id),
    revision BIGINT NOT NULL,
    patches TEXT NOT NULL,
    PRIMARY KEY (network, revision)
);
INSERT INTO "changes" VALUES('yzuraem3fghsibzl',2,'owABAQICgYIBgaMAoQBYXKUASsZpEBGbKY8kBysBSrh+glXun0KIB9sCWCDtiIeAcsoLUZ+wHA8S7MS/PmS9DPsq1bqXusnDv4MWXwOCRQrVAAIgUf32hJZaPetL4nEPDvP8s8KABIFjYXJtAWZtZW1iZXICAA==');
INSERT INTO "changes" VALUES('yzuraem3fghsibzl',3,'owACAQMCgYIBgaMAoQBYXKUASsZpEBGbKY8kBysBSo5yB72qYxbgd/kCWCAd3HOYiDrpdsurGT5BlXdqJUND04W8KgMrl7phKc9KEgOCRQrVAAMgUf32hJZaPetLVxnnI5YHGgWABIFjYXJtAWVvdGhlcgIA');
INSERT INTO "changes" VALUES('yzuraem3fghsibzl',4,'owADAQQCgYIBgaMAoQBYXKUASsZpEBGbKY8kBysBSsQlNFwVjuVsA1cCWCAQj0NGjgUkCPvPOAAWHmY1wGMs//cOPKqCJQgexVjmXwOCRQrVAAQgUf32hJZaPetL15Dntm48QWSABIFjYXJtAWdyZW1vdmVkAgA=');
INSERT INTO "changes" VALUES('yzuraem3fghsibzl',5,'owAEAQUCgYICgUrEJTRcFY7lbANX');
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
INSERT INTO "join_keys" VALUES('5zqollns','yzuraem3fghsibzl','cMpAosWy6mCEz6kB2m7ZAk8isEAWcp8tHbK/n0tSO8U=',1,'["arm"]',1795385673,NULL,NULL,3);
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO "meta" VALUES('ca_spki_sha256','yNVbjrA7mGS0X22lnoelkXztwW4iR8wJOeR3hOrGjq0=');
CREATE TABLE networks (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    prefix_v4 TEXT NOT NULL,
    prefix_v6 TEXT NOT NULL,
    mtu BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created BIGINT NOT NULL
);
INSERT INTO "networks" VALUES('yzuraem3fghsibzl','lab','10.213.0.0/16','fdf6:8496:5a3d:eb4b::/64',1280,5,1795385673);
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
INSERT INTO "nodes" VALUES('yzuraem3fghsibzl','xb7ievpot5biqb63','member','7YiHgHLKC1GfsBwPEuzEvz5kvQz7KtW6l7rJw7+DFl8=','S9iW6AQgFjPKCoSBVwLA6tdj9YeZx82LTBA/t2VtHag=','10.213.0.2','fdf6:8496:5a3d:eb4b:e271:f0e:f3fc:b3c2','["arm"]','5zqollns',1795385673,1795385673,'test-1');
INSERT INTO "nodes" VALUES('yzuraem3fghsibzl','rzzappnkmmloa57z','other','HdxzmIg66XbLqxk+QZV3aiVDQ9OFvCoDK5e6YSnPShI=','Z4LubxlCzO0DRW02mta/mcmZg5obPW3Xj5l6z6pUyVc=','10.213.0.3','fdf6:8496:5a3d:eb4b:5719:e723:9607:1a05','["arm"]','5zqollns',1795385673,1795385673,'test-1');
COMMIT;
