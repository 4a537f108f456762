-- Calls the function `one`, which stands before this, for each partition: the end of what `scripts.together` makes.

local answers, keys, arguments = {}, tonumber(ARGV[1]), tonumber(ARGV[2])
for call = 0, #KEYS / keys - 1 do
  local own, given = {}, {}
  for at = 1, keys do
    own[at] = KEYS[call * keys + at]
  end
  for at = 1, arguments do
    given[at] = ARGV[2 + call * arguments + at]
  end
  answers[call + 1] = one(own, given)
end
return answers
