-- Lists the newest, or the oldest, entries of some indexes that are in others, too. All have the same entries,
-- "<created_us>:<id>".
--
-- One call sees all indexes of its partition at one moment: an execution that changes its state between two calls is
-- still met, as its entry keeps its place.
--
-- KEYS          the indexes in groups: an entry must be in one index of each group. The first group is gone through
-- ARGV[1..2]    where the range begins and where it ends, as ZREVRANGEBYLEX or ZRANGEBYLEX takes them
-- ARGV[3]       how many entries are wanted
-- ARGV[4]       about how many of each index may be looked at: others want the server, too
-- ARGV[5]       '1' for the oldest first, else '0'
-- ARGV[6..]     how many indexes each group has
--
-- Returns {'1' if there are no more entries, where what was not looked at begins, entries...}.

local begin, wanted, left, own = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6])
local batch = #ARGV > 6 and 100 or wanted
local is_ascending = ARGV[5] == '1'

local function comes_before(one, other)
  if is_ascending then
    return one < other
  end
  return one > other
end

local function range(key)
  if is_ascending then
    return redis.call('ZRANGEBYLEX', key, begin, ARGV[2], 'LIMIT', 0, batch)
  end
  return redis.call('ZREVRANGEBYLEX', key, begin, ARGV[2], 'LIMIT', 0, batch)
end

local function is_in_each_group(entry)
  local key = own + 1
  for group = 7, #ARGV do
    local is_in, next_group = false, key + ARGV[group]
    while key < next_group and not is_in do
      is_in = redis.call('ZSCORE', KEYS[key], entry)
      key = key + 1
    end
    if not is_in then
      return false
    end
    key = next_group
  end
  return true
end

-- Returns the next entries of all indexes of the first group, in order, up to where one of them has more to show, and
-- whether these were the last ones.
local function next_entries()
  if own == 1 then
    local entries = range(KEYS[1])
    return entries, #entries < batch
  end
  local horizon, all = '', {}
  for key = 1, own do
    local entries = range(KEYS[key])
    for _, entry in ipairs(entries) do
      all[#all + 1] = entry
    end
    if #entries == batch and (horizon == '' or comes_before(entries[batch], horizon)) then
      horizon = entries[batch]
    end
  end
  table.sort(all, comes_before)
  local last = #all
  while last > 0 and horizon ~= '' and comes_before(horizon, all[last]) do
    all[last] = nil
    last = last - 1
  end
  return all, horizon == ''
end

local answer = {'0', begin}
while left > 0 do
  local entries, are_last = next_entries()
  for _, entry in ipairs(entries) do
    if is_in_each_group(entry) then
      answer[#answer + 1] = entry
      if #answer == wanted + 2 then
        answer[2] = '(' .. entry
        return answer
      end
    end
  end
  if are_last then
    answer[1] = '1'
    return answer
  end
  begin = '(' .. entries[#entries]
  left = left - batch
end
answer[2] = begin
return answer
