-- uses: clock
-- Lists executions of one partition that have expired and are still in the indexes.
--
-- KEYS[1]  expiring  zset  execution id by the server's millisecond of its expiry
-- KEYS[2]  cards     hash  execution id -> what never changes
-- ARGV[1]  most to list
--
-- Returns {execution id, card, execution id, ...}.

local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. text(server_ms()), 'LIMIT', 0, ARGV[1])) do
  found[#found + 1] = id
  found[#found + 1] = redis.call('HGET', KEYS[2], id)
end
return found
