-- uses: clock audit idempotency
-- Creates an execution, unless its idempotency key is taken.
--
-- KEYS[1]  x:<id>            hash  the header; exists after a repetition of this very call, or under a chosen id
-- KEYS[2]  due               zset  execution id by due_us
-- KEYS[3]  bells             hash  execution id -> "token:rings:cancel_requested:over"
-- KEYS[4]  cards             hash  execution id -> what never changes: see ARGV[6]
-- KEYS[5]  expiring          zset  execution id by the server's millisecond of its expiry
-- KEYS[6]  idempotency       hash  "<agent id>\0<idempotency key>" -> execution id
-- KEYS[7]  audit:<id>        list  the audit trail
-- KEYS[8+] all, state:idle, agent:<agent>, session:<session>, user:<user>
--                            zsets that list the execution as "<created_us>:<id>"
--
-- ARGV[1]  injected time in us, or empty
-- ARGV[2]  execution id
-- ARGV[3]  field in `idempotency`, or empty
-- ARGV[4]  due_us, or empty
-- ARGV[5]  grace in us that makes due_us when ARGV[4] is empty
-- ARGV[6]  card, to be completed by created_us in front
-- ARGV[7]  how often its bell counts as rung
-- ARGV[8+] names and values of the header, without created_us, updated_us and due_us
--
-- Nobody knows the id yet, so nobody watches: nothing is published.
--
-- Returns {'OK', created_us}, {'THERE', created_us of the execution with this id} or {'TAKEN', execution id}.

local now, id = clock_us(ARGV[1]), ARGV[2]
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'THERE', redis.call('HGET', KEYS[1], 'created_us')}
end
local taken = holder_of(KEYS[6], KEYS[5], ARGV[3])
if taken then
  return {'TAKEN', taken}
end

local created = text(now)
local fields = {'created_us', created, 'updated_us', created}
for i = 8, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
redis.call('HSET', KEYS[1], unpack(fields))
note(KEYS[7], now, 'created', '', 'idle', '0', '', '', '', '')
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[6], ARGV[3], id)
end
redis.call('ZADD', KEYS[2], ARGV[4] ~= '' and ARGV[4] or text(now + tonumber(ARGV[5])), id)
redis.call('HSET', KEYS[3], id, '0:' .. ARGV[7] .. ':0:0')
redis.call('HSET', KEYS[4], id, created .. '\0' .. ARGV[6])
local entry = string.format('%018.0f', now) .. ':' .. id
for i = 8, #KEYS do
  redis.call('ZADD', KEYS[i], 0, entry)
end
return {'OK', created}
