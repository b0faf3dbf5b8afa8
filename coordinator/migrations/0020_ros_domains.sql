-- The ROS domains of a network: 'per-robot', or those that all members share ('7' or '7,8'); absent: everybody's own choice.
ALTER TABLE networks ADD COLUMN ros_domains TEXT;
-- The one of a member, where each has its own.
ALTER TABLE nodes ADD COLUMN ros_domain BIGINT;
