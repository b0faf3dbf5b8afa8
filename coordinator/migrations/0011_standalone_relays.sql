-- Relays of kind 'own' run Ria's relay on another machine. `key_digest` is the SHA-256 of the secret in its key, good until
-- `key_expires` for a first connection; from then on `tls_key` says who it is. `host` is empty until it has said where it is.
-- `networks` is a JSON list of the networks that it serves, NULL for all.
ALTER TABLE relays ADD COLUMN key_expires BIGINT;
ALTER TABLE relays ADD COLUMN tls_key TEXT;
ALTER TABLE relays ADD COLUMN networks TEXT;
-- Certificates (PEM) by which nodes know another TURN server at `tls_port`.
ALTER TABLE relays ADD COLUMN tls_ca TEXT;
