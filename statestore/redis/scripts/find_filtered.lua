-- The newest entries of one index that are in others, too. All have the same entries, "<created_us>:<id>".
--
-- KEYS[1]       the index to go through
-- KEYS[2..]     the others, in groups: an entry has to be in one index of each group
-- ARGV[1..2]    upper and lower end of the range, as ZREVRANGEBYLEX takes them
-- ARGV[3]       how many entries are wanted
-- ARGV[4]       how many may be looked at, about: others want the server, too
-- ARGV[5..]     how many indexes each group has
--
-- Returns {'1' if there are no more entries, the upper end of what was not looked at, entries...}.

local upper, wanted, left = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local batch = #ARGV > 4 and 100 or wanted

local function is_in_each_group(entry)
  local key = 2
  for group = 5, #ARGV do
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

local answer = {'0', upper}
while left > 0 do
  local entries = redis.call('ZREVRANGEBYLEX', KEYS[1], upper, ARGV[2], 'LIMIT', 0, batch)
  for _, entry in ipairs(entries) do
    if is_in_each_group(entry) then
      answer[#answer + 1] = entry
      if #answer == wanted + 2 then
        answer[2] = '(' .. entry
        return answer
      end
    end
  end
  if #entries < batch then
    answer[1] = '1'
    return answer
  end
  upper = '(' .. entries[#entries]
  left = left - #entries
end
answer[2] = upper
return answer
