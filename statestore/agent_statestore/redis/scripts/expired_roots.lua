-- uses: clock
-- Lists the roots of one partition that hold documents which have expired.
--
-- KEYS[1]  docexpiring  zset  as KEYS[5] of document.lua
-- ARGV[1]  injected time in us, or empty
-- ARGV[2]  most to list
--
-- Returns {root, root, ...}.

return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(clock_us(ARGV[1])), 'LIMIT', 0, ARGV[2])
