-- Of whom a network's members are told ('push', 'on-demand'); absent: push.
ALTER TABLE networks ADD COLUMN peers TEXT;
