-- uses: clock
-- Takes the next turn of a bucket, or promises one; decides as agent_statestore.rules.rates.Asked.answer does.
--
-- KEYS[1]  rates  hash  bucket -> "next_us:end_us"; expires a minute after the last of them has stopped to matter
--
-- ARGV[1]  injected time in us, or empty
-- ARGV[2]  bucket
-- ARGV[3]  interval in us
-- ARGV[4]  longest line in us
-- ARGV[5]  within, in us
-- ARGV[6]  '1' for a caller that was promised a turn, else '0'
-- ARGV[7]  how far ahead a line may lie, in us
--
-- Returns {'taken', 'promised' or 'none', us to wait}.

local now, bucket = clock_us(ARGV[1]), ARGV[2]
local interval, longest, within = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local next_us, end_us = 0, 0
local line = redis.call('HGET', KEYS[1], bucket)
if line then
  local colon = string.find(line, ':', 1, true)
  next_us, end_us = tonumber(string.sub(line, 1, colon - 1)), tonumber(string.sub(line, colon + 1))
  if math.max(next_us, end_us) - now > tonumber(ARGV[7]) then
    next_us, end_us = 0, 0
  end
end

local soonest = math.max(now, next_us)
local promised = math.max(soonest, end_us)
local answer, turn
if soonest - now <= within and (ARGV[6] == '1' or end_us <= soonest) then
  answer, turn, next_us = 'taken', soonest, soonest + interval
elseif promised - now <= longest then
  answer, turn, end_us = 'promised', promised, promised + interval
else
  return {'none', text(longest)}
end

redis.call('HSET', KEYS[1], bucket, text(next_us) .. ':' .. text(end_us))
-- By the server's time, also under an injected clock, which may stand still for a while.
local ttl_ms = math.ceil((math.max(next_us, end_us) - now) / 1000) + 60000
if redis.call('PTTL', KEYS[1]) < ttl_ms then
  redis.call('PEXPIRE', KEYS[1], text(ttl_ms))
end
return {answer, text(turn - now)}
