-- uses: clock document
-- Copies vectors of one root from their documents to vector sets (Redis 8), and takes out those without documents.
-- Each copy is made only of what stands there now, so that none is left of what is erased meanwhile.
--
-- KEYS[1]     docs:<root>           hash    as in document.lua
-- KEYS[2]     docvectors:<root>     hash    the rest of the place of a copied vector -> <version>:<name of its set>, the
--                                           name empty where the document holds no vector; the rest of the place of a
--                                           document that notes changes -> the version up to which all are copied
-- KEYS[3]     docvectorsets:<root>  zset    the names of the vector sets
-- KEYS[4..]   docvectorset:<root><name>  vector sets, exact ones (NOQUANT); their elements are the keys of the documents
--
-- ARGV[1]     injected time in us, or empty
-- ARGV[2]     the rest of the place of the document that notes changes
-- ARGV[3]     the version up to which all must be copied before, or empty for any lower one
-- ARGV[4]     the version up to which all are copied afterwards, or empty
-- ARGV[5..]   the names of the sets in KEYS[4..]
-- then        (rest of the place, version or empty to take it out, number of the set where it is or 0, number of the set
--             where it comes to or 0, key, vector)
--
-- Returns how many were passed over because another version stands there.

local now, changes, sets = clock_us(ARGV[1]), ARGV[2], #KEYS - 3
local at, passed_over = 5 + sets, 0
while at <= #ARGV do
  local rest, version, old, new = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local key, vector = ARGV[at + 4], ARGV[at + 5]
  local cell = redis.call('HGET', KEYS[1], rest)
  local document = cell and parsed(cell)
  local is_as_told
  if version == '' then
    is_as_told = not cell
  else
    is_as_told = document and is_there(document, now) and document.version == tonumber(version)
  end
  if is_as_told then
    if old > 0 and old ~= new then
      redis.call('VREM', KEYS[3 + old], key)
    end
    if new > 0 then
      redis.call('ZADD', KEYS[3], 0, ARGV[4 + new])
      redis.call('VADD', KEYS[3 + new], 'FP32', vector, key, 'NOQUANT', 'EF', 50, 'M', 16)
    end
    if version == '' then
      redis.call('HDEL', KEYS[2], rest)
    else
      redis.call('HSET', KEYS[2], rest, version .. ':' .. (new > 0 and ARGV[4 + new] or ''))
    end
  else
    passed_over = passed_over + 1
  end
  at = at + 6
end

if ARGV[4] ~= '' and passed_over == 0 then
  local document = parsed(redis.call('HGET', KEYS[1], changes) or nil)
  local seen = tonumber(redis.call('HGET', KEYS[2], changes) or '0')
  local follows = ARGV[3] == '' and seen < tonumber(ARGV[4]) or ARGV[3] ~= '' and seen == tonumber(ARGV[3])
  if document and document.version >= tonumber(ARGV[4]) and follows then
    redis.call('HSET', KEYS[2], changes, ARGV[4])
  end
end
return passed_over
