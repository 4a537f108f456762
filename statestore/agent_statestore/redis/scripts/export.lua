-- Reads everything of one execution in one consistent look.
--
-- KEYS[1..13]  as in execution.lua; `intents` is not read: the steps say the same
-- ARGV[1]      execution id
--
-- Returns {header, due_us, steps, messages, working memory, facts, entities, rag, ids of the mailbox, signals, audit, events},
-- where hashes are names and values in turn, or nil.

local header = redis.call('HGETALL', KEYS[1])
if #header == 0 then
  return nil
end
return {
  header,
  redis.call('ZSCORE', KEYS[2], ARGV[1]),
  redis.call('LRANGE', KEYS[3], 0, -1),
  redis.call('LRANGE', KEYS[5], 0, -1),
  redis.call('HGETALL', KEYS[6]),
  redis.call('LRANGE', KEYS[7], 0, -1),
  redis.call('HGETALL', KEYS[8]),
  redis.call('LRANGE', KEYS[9], 0, -1),
  redis.call('ZRANGE', KEYS[10], 0, -1),
  redis.call('HGETALL', KEYS[11]),
  redis.call('LRANGE', KEYS[12], 0, -1),
  redis.call('LRANGE', KEYS[13], 0, -1),
}
