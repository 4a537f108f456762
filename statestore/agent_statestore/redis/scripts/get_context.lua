-- uses: clock states execution
-- Reads one execution in one consistent look.
--
-- KEYS[1..11]  as in execution.lua; `intents` is not read
-- ARGV[1]      execution id
--
-- Returns {header, steps, messages, working memory, facts, entities, rag, signals} or nil.

return read_context(ARGV[1])
