-- Makes sure that a promised idempotency key is not used by a restore that has not come to its end.
--
-- KEYS[1]  x:<id>                  hash    the header
-- KEYS[2]  refused:<id>:<promise>  string  there if that restore must be refused
-- ARGV[1]  for how many ms
--
-- Returns 1, or 0 if the execution is there: then it has the key.

if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('SET', KEYS[2], '', 'PX', ARGV[1])
return 1
