-- uses: clock states execution idempotency publish
-- Stores an execution as it was exported, in place of an older copy that nobody holds.
--
-- KEYS[1..26]   as in execution.lua
-- KEYS[27..29]  ended:<state>           zsets   execution id by ended_us
-- KEYS[30]      cards                   hash    execution id -> what never changes
-- KEYS[31]      idempotency             hash    "<agent id>\0<idempotency key>" -> execution id
-- KEYS[32]      refused:<id>:<promise>  string  there if the promise of the key was taken back; see redis/idempotency.py
-- KEYS[33+]     all, agent:<agent>, session:<session>, user:<user>, zsets that list the execution
--
-- ARGV[1]       injected time in us, or empty
-- ARGV[2]       execution id
-- ARGV[3..5]    how far it has come: version, token, entries of the audit trail
-- ARGV[6]       state
-- ARGV[7]       its field in `idempotency`, or empty if it has none, or has it in another partition
-- ARGV[8]       '1' if it has its idempotency key in another partition, else '0'
-- ARGV[9]       ttl in ms of an execution that is over, or else of a working one; or empty
-- ARGV[10]      its card
-- ARGV[11]      due_us, or empty
-- ARGV[12]      ended_us, or empty
-- ARGV[13]      numbers of the words below, joined by commas
-- then          the words for KEYS[1] and KEYS[3..13]: names and values of hashes, members of lists, scores and members
--               of the zset
--
-- Returns {'OK'}, {'KEPT'} if the copy that is there is newer, as new, or claimed, {'REFUSED'},
-- {'TAKEN', execution id} or {'FORMAT_TOO_NEW', format}.

local now, id, state = clock_us(ARGV[1]), ARGV[2], ARGV[6]
local h = redis.call('HMGET', KEYS[1], 'version', 'token', 'lease_until_us', 'format', 'created_us')
if h[1] then
  if tonumber(h[4]) > NEWEST_FORMAT then
    return {'FORMAT_TOO_NEW', h[4]}
  end
  local come, comes = {tonumber(h[1]), tonumber(h[2]), redis.call('LLEN', KEYS[12])}, 0
  for i = 1, 3 do
    if comes == 0 then
      comes = tonumber(ARGV[2 + i]) - come[i]
    end
  end
  if comes <= 0 or tonumber(h[3]) > now then
    return {'KEPT'}
  end
end
if ARGV[8] == '1' and redis.call('EXISTS', KEYS[32]) == 1 then
  return {'REFUSED'}
end
local holder = holder_of(KEYS[31], KEYS[17], ARGV[7])
if holder and holder ~= id then
  return {'TAKEN', holder}
end

-- In pieces, because Lua passes some thousand arguments at most.
local PIECE, next_arg = 1000, 14
local function write(command, key, count)
  for at = next_arg, next_arg + count - 1, PIECE do
    redis.call(command, key, unpack(ARGV, at, math.min(at + PIECE, next_arg + count) - 1))
  end
  next_arg = next_arg + count
end

-- The idempotency key, or else the card, comes first: a server out of memory refuses it, while the older copy is there.
if ARGV[7] ~= '' then
  redis.call('HSET', KEYS[31], ARGV[7], id)
end
redis.call('HSET', KEYS[30], id, ARGV[10])
redis.call('DEL', KEYS[1])
for part = FIRST_PART, LAST_PART do
  redis.call('DEL', KEYS[part])
end
local part, commands = 0, {'HSET', 'RPUSH', 'HSET', 'RPUSH', 'HSET', 'RPUSH', 'HSET', 'RPUSH', 'ZADD', 'HSET', 'RPUSH',
  'RPUSH'}
for count in string.gmatch(ARGV[13], '%d+') do
  part = part + 1
  write(commands[part], KEYS[part == 1 and 1 or part + 1], tonumber(count))
end

local entry = string.format('%018.0f', tonumber(redis.call('HGET', KEYS[1], 'created_us'))) .. ':' .. id
for i = BEFORE_STATES + 1, BEFORE_STATES + 9 do
  redis.call('ZREM', KEYS[i], entry)
end
redis.call('ZADD', KEYS[BEFORE_STATES + state_number(state)], 0, entry)
for i = 33, #KEYS do
  redis.call('ZADD', KEYS[i], 0, entry)
end
forget_lease(id)
for i = 27, 29 do
  redis.call('ZREM', KEYS[i], id)
end
if ARGV[11] ~= '' then
  ring_at(id, tonumber(ARGV[11]))
else
  ring_at(id, nil)
  if is_over(state) then
    redis.call('ZADD', KEYS[26 + state_number(state) - BEFORE_OVER], ARGV[12], id)
  end
end
touch(id, state, ARGV[9])
redis.pcall(PUBLISH, KEYS[1], '')
return {'OK'}
