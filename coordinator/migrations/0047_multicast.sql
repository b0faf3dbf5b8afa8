-- Multicast groups that a network carries beside discovery ('mdns,239.1.2.3:5000'); absent: none.
ALTER TABLE networks ADD COLUMN multicast TEXT;
