-- uses: states
-- Clears the due time of an execution that is over.
--
-- KEYS[1]  x:<id>  hash  the header
-- KEYS[2]  due     zset  execution id by due_us
-- KEYS[3]  bells   hash  execution id -> "token:rings:cancel_requested:over"
-- ARGV[1]  execution id

if is_over(redis.call('HGET', KEYS[1], 'state')) then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
end
return 0
