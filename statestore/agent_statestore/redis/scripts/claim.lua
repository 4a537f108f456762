-- uses: clock states execution audit publish
-- Takes the lease and reads the context under it.
--
-- KEYS[1..26]  as in execution.lua; `intents` is not used
-- ARGV[1]      injected time in us, or empty
-- ARGV[2]      execution id
-- ARGV[3]      owner
-- ARGV[4]      ttl of the lease in us
-- ARGV[5]      ttl of a working execution in ms, or empty
-- ARGV[6]      newest format that the caller reads
--
-- Returns {'OK', token, lease_until_us, now_us, context as in get_context.lua}, {'FORMAT_TOO_NEW', format},
-- {'UNREADABLE', name of a damaged field} or nil.

local now, id = clock_us(ARGV[1]), ARGV[2]
local h = redis.pcall('HMGET', KEYS[1], 'format', 'state', 'lease_until_us', 'not_before_us', 'token', 'crashes',
  'created_us')
if not h[1] and redis.call('EXISTS', KEYS[1]) == 0 then
  return nil
end
-- A damaged field must not end the script with an error, which would look like a fault of the server.
for i, name in ipairs({'format', 'state', 'lease_until_us', 'not_before_us', 'token', 'crashes', 'created_us'}) do
  if name == 'state' and not (h[i] and state_number(h[i])) or name ~= 'state' and not tonumber(h[i] or '') then
    return {'UNREADABLE', name}
  end
end
if tonumber(h[1]) > tonumber(ARGV[6]) then
  return {'FORMAT_TOO_NEW', h[1]}
end
if is_over(h[2]) or tonumber(h[3]) > now or tonumber(h[4]) > now then
  return nil
end

local token, until_us = text(tonumber(h[5]) + 1), text(now + tonumber(ARGV[4]))
redis.call('HSET', KEYS[1],
  'state', 'thinking',
  'token', token,
  'crashes', text(tonumber(h[6]) + 1),
  'rings', '0',
  'owner', ARGV[3],
  'lease_until_us', until_us,
  'not_before_us', '0',
  'updated_us', text(now))
note(KEYS[12], now, 'claimed', h[2], 'thinking', token, '', '', '', ARGV[3])
redis.call('ZADD', KEYS[15], until_us, id)
redis.call('HSET', KEYS[16], id, token .. ':' .. ARGV[3])
ring_at(id, until_us)
move_state(id, h[2], 'thinking')
touch(id, 'thinking', ARGV[5])
redis.pcall(PUBLISH, KEYS[1], '')
return {'OK', token, until_us, text(now), read_context(id)}
